"""What the training commands share around DeepSpeed. It imports no command.

program         a training command, from its command line to its exit code;  streams: its output on a full disk
distributed     ranks, rank 0 first, time-outs;  meeting: all have come;  ports: a free one;  allocator: memory on a GPU
batch_plan      global batch -> micro-batch and accumulation
outputs         where a run writes, and where its shards are;  demo_clips: the demo's own;  logs: JSON lines
models          the framework of a run;  hub: one process of a machine asks for published files
weights         each rank's slices of pretrained weights
setup           DeepSpeed JSON + run -> one engine;  ds_json: slips in it;  cpu_op: what DeepSpeed compiles
compiling       blocks under torch.compile
internals       what reaches into private parts of DeepSpeed and torch: partitions, traces, shards
calibration     mean and deviation of the frozen features
loop            optimiser steps up to the end: logged, saved and judged
stepping        one optimiser step;  finite: losses and gradients that are not
host_memory     what can still be had of it;  shared_memory: in /dev/shm;  memory: what this rank uses
run_control     how a run is stopped before its end

loading/        shards -> micro-batches of this rank
saving/         EMA, checkpoints
watching/       metrics, validation, traces
"""

import os

import torch

if not torch.cuda.is_available():
    # Said before DeepSpeed is imported, or it prints on stdout that it found no accelerator.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
