"""Host memory of a node: that of its ranks and their loader processes."""

from pipelines.config import RunConfig
from pipelines.engine.loading.workers import AHEAD
from pipelines.engine.saving.host_buffers import pinned_bytes
from pipelines.metering.workload import Workload
from pipelines.planning.memory import Parameter, Share, trained_shard

# Kinds of fp32 buffers that a checkpoint copies: master weights and two moments. An EMA is one more.
SAVED_KINDS = 3

PINNED = 1  # micro-batches in pinned memory

# Bytes of a rank's process without models and data, measured on a CPU with torch 2.13 and two loader processes. Each of
# these adds only 20 MB of its own. CUDA's share on the host is not included.
PROCESS = 700_000_000


def host_memory(parameters: list[Parameter], ranks: int, config: RunConfig, load: Workload) -> list[Share]:
    """Returns the host memory of one rank, without offloaded states."""
    kinds = SAVED_KINDS + (config.train.ema_decay is not None)
    batches = config.data.workers * AHEAD + PINNED
    return [
        Share("checkpoint copies, pinned", pinned_bytes([trained_shard(parameters, ranks)] * kinds), on_host=True),
        Share(f"{batches} micro-batches loaded ahead", batches * load.bytes, on_host=True),
        Share("its process, CUDA apart", PROCESS, on_host=True),
    ]
