"""What a run will need, from its configuration alone.

blocks     one more layer of a stack
rates      how fast a GPU is at each kind of work
time       seconds of a micro-step
sharding   what the DeepSpeed JSON means for memory
memory     bytes of a rank, by part
host       host memory of a rank
traffic    bytes a rank sends through the network in a step
forecast   all of it for one number of GPUs, with time and cost
advice     which setting would make it fit
"""
