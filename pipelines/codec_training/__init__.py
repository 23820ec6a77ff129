"""Trains the small autoencoders that a tokenisation strategy needs first, on the engine that trains VTok.

command     the command line
config      the configuration of a run
recipes     what differs between the codecs: model, input, losses, files
data        clips to micro-batches of a codec's input
run         a run from its start to its last step
"""
