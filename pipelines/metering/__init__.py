"""What a training step costs, counted on the real framework on the meta device.

workload   what one micro-batch is made of
step       one training step under the meter
meter      counts work and live bytes of whatever runs under it, by phase
kinds      FLOPs and bytes of one operator
known      values of index tensors on the meta device
results    shapes of results there, remembered
flops      FLOPs of a training sample, by part
"""
