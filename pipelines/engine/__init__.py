"""What the pipelines share around DeepSpeed.

distributed     ranks, rendezvous, rank 0 first, time-outs; allocator: torch's memory on the GPU
batch_plan      global batch -> micro-batch and accumulation
outputs         where a run writes, and where its shards are
models          the framework of a run, with its weights' place on disk; hub: one process of a machine asks for them
weights         each rank's slices of pretrained weights; residency: what an engine keeps, counted
setup           DeepSpeed JSON + run -> one engine
calibration     mean and deviation of the frozen features
stepping        one optimiser step; finite: losses and gradients that are not
host_memory     what can still be had of it; shared_memory: in /dev/shm
program         a training command, from its command line to its exit code
run_control     how a run is stopped before its end

loading         shards -> micro-batches of this rank
saving          partitions, EMA, checkpoints
watching        metrics, validation, traces
"""
