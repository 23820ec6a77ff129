"""The shift of noise levels, under the names that diffusers' schedulers give it."""

from typing import Any

import torch


def shift_key(scheduler: Any) -> str:
    """Returns the name that the shift of noise levels has in a scheduler's configuration."""
    return "flow_shift" if "flow_shift" in scheduler.config else "shift"


def with_shift(scheduler: Any, shift: float) -> Any:
    """Returns the scheduler with another shift of noise levels."""
    with torch.device("cpu"):  # it computes its noise levels at once
        return type(scheduler).from_config(scheduler.config, **{shift_key(scheduler): shift})
