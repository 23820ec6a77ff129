"""What was trained, on its way to disk and back.

slices          slices of flattened tensors in safetensors files, for any number of readers
ema             the average of the weights, sharded
folders         which folders are a run's checkpoints, and what may be removed;  rotation: which ones stay
kept            frozen weights that no checkpoint and no pretrained model holds
choosing        the newest undamaged one, or the one that a user names
checkpoint      what it holds: check, resume, read for inference
writing         write them while training goes on, from host_buffers: memory taken at the start
persistent      tries again while a disk is full
"""
