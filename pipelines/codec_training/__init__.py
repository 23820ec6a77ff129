"""Trains the small autoencoders that a tokenisation strategy needs first, on the engine that trains VTok.

command     the command line
config      the configuration of a run
recipes     what differs between the codecs: model, input, losses, files
data        clips to micro-batches of a codec's input
validation  held-out clips
run         a run from its start to its last step
"""
