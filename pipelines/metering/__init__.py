"""Counts the cost of a training step on the real framework, on the meta device.

workload   the clips and captions of a micro-batch
step       runs one training step under the meter
meter      counts the work and the live bytes of code, by phase
kinds      FLOPs and bytes of one operator
known      keeps the values of index tensors on the meta device
results    remembers the shapes of results on the meta device
flops      FLOPs of a training sample, by part
"""
