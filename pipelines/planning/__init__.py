"""What a run will need, from its configuration alone.

workload   what one micro-batch is made of
meter      counts FLOPs and live bytes of whatever runs under it
step       one training step of the real modules on the meta device, under the meter
sharding   what the DeepSpeed JSON means for memory
memory     bytes of a rank, by part
traffic    bytes a rank sends through the network in a step
forecast   all of it for one number of GPUs, with time and cost
advice     which setting would make it fit
"""
