"""Host memory of a node: what its ranks and their loader processes take."""

from pipelines.config import RunConfig
from pipelines.engine.saving.host_buffers import pinned_bytes
from pipelines.metering.workload import Workload
from pipelines.planning.memory import Parameter, Share, trained_shard

# Kinds of fp32 buffers that a checkpoint copies: master weights, two moments, and the EMA where there is one.
SAVED_KINDS = 3

# Micro-batches that each loader process makes ahead (torch.utils.data.DataLoader's ``prefetch_factor``), and the one
# that is copied to pinned memory.
PREFETCHED, PINNED = 4, 1

# Bytes of a rank's process without models and data: measured on a CPU with torch 2.13 and two loader processes, which
# share all but 20 MB of their own with it. What CUDA takes on the host is not known here.
PROCESS = 700_000_000


def host_memory(parameters: list[Parameter], ranks: int, config: RunConfig, load: Workload) -> list[Share]:
    """Host memory of one rank, offloaded states apart."""
    kinds = SAVED_KINDS + (config.train.ema_decay is not None)
    batches = config.data.workers * PREFETCHED + PINNED
    return [
        Share("checkpoint copies, pinned", pinned_bytes([trained_shard(parameters, ranks)] * kinds), on_host=True),
        Share(f"{batches} micro-batches loaded ahead", batches * load.bytes, on_host=True),
        Share("its process, CUDA apart", PROCESS, on_host=True),
    ]
