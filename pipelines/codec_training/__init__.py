"""Trains the small autoencoders that a tokenisation strategy needs first, on the engine that trains VTok.

config      the configuration of a run
recipes     what differs between the codecs: model, input, losses, files
data        shards or video files to micro-batches
run         a run from its start to its last step
"""
