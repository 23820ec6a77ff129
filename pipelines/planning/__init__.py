"""Predicts what a run needs, from its configuration alone.

blocks     the cost of one layer of a stack
rates      the speed of a GPU at each kind of work
time       seconds per micro-step
sharding   the DeepSpeed JSON's effect on memory
memory     bytes of a rank, by part
host       host memory of a rank
traffic    bytes per step between GPUs
forecast   all of these for a number of GPUs, with time and cost
advice     settings that would make a run fit
"""
