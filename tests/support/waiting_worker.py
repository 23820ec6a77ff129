"""Two ranks, of which the second works for a second before a collective: prints how long each one waits.

deepspeed --num_gpus 2 waiting_worker.py
"""

import time

import torch

from pipelines.engine import distributed, waiting

distributed.connect()
with waiting.measured():
    distributed.reduce_over_ranks(torch.ones(3))
    waiting.take()
    time.sleep(1.0 * distributed.rank())
    distributed.gather_lists([1])
    print(f"RANK {distributed.rank()} WAITED {waiting.take():.3f}", flush=True)
