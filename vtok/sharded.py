"""A framework that DeepSpeed has sharded (ZeRO-3).

Each module gathers its weights from all ranks when it runs. So all ranks must run the same modules equally often, or
they wait for each other forever.
"""

import torch.distributed as dist
from torch import nn

from vtok.config import ConfigError


def needs_all_ranks(module: nn.Module) -> bool:
    """Whether all ranks must run this module together."""
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return several and any(hasattr(parameter, "ds_tensor") for parameter in module.parameters())


def require_alike(module: nn.Module, **counts: int) -> None:
    """Checks that all ranks are about to run a module equally often, if they must run it together.

    Args:
        module: The module.
        **counts: The numbers that decide how often this rank runs it.

    Raises:
        ConfigError: The ranks differ. Every rank raises it.
    """
    if not needs_all_ranks(module):
        return
    by_rank = [counts] * dist.get_world_size()
    dist.all_gather_object(by_rank, counts)
    for name in counts:
        values = [of_rank[name] for of_rank in by_rank]
        if len(set(values)) > 1:
            raise ConfigError(
                f"under ZeRO-3 all ranks sample together: give each as many {name.replace('_', ' ')}, not "
                f"{', '.join(map(str, values))}"
            )
