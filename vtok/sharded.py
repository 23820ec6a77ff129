"""A framework that DeepSpeed has sharded (ZeRO-3): ranks gather weights for one another, at every module that runs.

So all ranks have to run the same modules, equally often, or they wait for one another for ever.
"""

import torch.distributed as dist
from torch import nn

from vtok.config import ConfigError


def needs_all_ranks(module: nn.Module) -> bool:
    """Whether this module runs only together with the other ranks'."""
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return several and any(hasattr(parameter, "ds_tensor") for parameter in module.parameters())


def require_alike(module: nn.Module, **counts: int) -> None:
    """Where a module needs all ranks: that they are about to run it equally often.

    Args:
        counts: what says how often, by name.

    Raises:
        ConfigError: on every rank, that they are not.
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
