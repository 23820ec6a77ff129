"""What was trained, on its way to disk and back.

slices          slices of flattened tensors in safetensors files, for any number of readers
ema             the average of the weights, sharded
checkpoint      a run's checkpoints: find, check, resume, read for inference
writing         write them while training goes on, from host_buffers: memory taken at the start
"""
