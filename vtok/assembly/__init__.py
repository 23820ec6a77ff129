"""Puts a framework together.

architectures   builds a framework without weights, from stored configurations or those in the file
build           builds a framework with pretrained weights and new additions
pretrained      saves and loads a framework as a folder
adapters        saves and loads the language model's adapters in peft's format
tiny            writes tiny models with random weights, in the published layouts
"""
