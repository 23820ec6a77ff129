"""Puts a framework together.

architectures   an empty framework, from configurations that are read or written down here
build           a framework with pretrained parts and drawn additions
pretrained      a framework as a folder
tiny            tiny models with random weights, in the published layouts
"""
