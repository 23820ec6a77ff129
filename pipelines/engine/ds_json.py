"""Checks a DeepSpeed JSON: its keys, types and values at every level.

DeepSpeed ignores unknown keys at the top, and answers a wrong type with a traceback from its middle. So the keys that
this engine can use are listed here. Those of the ZeRO section and of the monitors are DeepSpeed's own.
"""

import difflib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Any, Literal, get_args

import deepspeed
from deepspeed.comm.config import CommsLoggerConfig
from deepspeed.monitor.config import CometConfig, CSVConfig, TensorBoardConfig, WandbConfig
from deepspeed.runtime.config import DeepSpeedConfigError
from deepspeed.runtime.config_utils import DeepSpeedConfigModel
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from vtok.config import ConfigError
from vtok.weights import first_line

Dtype = Literal["fp32", "fp16", "bf16"]

# What DeepSpeed raises when sound settings contradict one another, or need what this machine lacks.
REFUSALS = (AssertionError, ValueError, NotImplementedError, ImportError, DeepSpeedConfigError)

UNKNOWN = "extra_forbidden"  # pydantic's name of a key that a section does not have


class DataTypes(DeepSpeedConfigModel):
    grad_accum_dtype: Dtype | None = None
    param_dtype: Dtype | None = None
    buffer_dtype: Dtype | None = None
    keep_in_fp32_modules: Literal["auto"] | list[str] = "auto"


class FlopsProfiler(DeepSpeedConfigModel):
    enabled: bool = False
    recompute_fwd_factor: float = Field(0.0, ge=0)
    profile_step: int = Field(1, ge=1)
    module_depth: int = Field(-1, ge=-1)
    top_modules: int = Field(1, ge=1)
    detailed: bool = True
    output_file: str | None = None


class Settings(DeepSpeedConfigModel):
    """The keys of a JSON, except those that the run computes."""

    zero_optimization: DeepSpeedZeroConfig = {}
    data_types: DataTypes = {}
    communication_data_type: Dtype | None = None
    zero_allow_untested_optimizer: bool = False
    zero_force_ds_cpu_optimizer: bool = True
    steps_per_print: int | None = Field(None, ge=1)
    wall_clock_breakdown: bool = False
    memory_breakdown: bool = False
    dump_state: bool = False
    disable_allgather: bool = False
    disable_python_gc: bool = False
    prescale_gradients: bool = False
    gradient_predivide_factor: float = Field(1.0, gt=0, allow_inf_nan=False)
    flops_profiler: FlopsProfiler = {}
    comms_logger: CommsLoggerConfig = {}
    tensorboard: TensorBoardConfig = {}
    wandb: WandbConfig = {}
    csv_monitor: CSVConfig = {}
    comet: CometConfig = {}


# What else people bring -> what to do about it.
ELSEWHERE = {
    "optimizer": "it is AdamW, set by train.lr, train.betas, train.eps and train.weight_decay",
    "scheduler": "set train.warmup_steps and train.schedule",
    "fp16": "set train.precision: this engine trains in bf16 or fp32",
    "amp": "set train.precision",
    "torch_autocast": "set train.precision",
    "activation_checkpointing": "set model.mllm.gradient_checkpointing",
    "elasticity": "a run resumes on any number of ranks without it",
    "checkpoint": "set checkpoint.every and checkpoint.keep",
    "seed": "set seed",
}


def require_sound(path: Path, config: dict[str, Any], computed: Collection[str]) -> None:
    """Checks all of a JSON but the keys that the run computes.

    Args:
        path: The file, for the message.
        config: The JSON.
        computed: The keys that the run computes.

    Raises:
        ConfigError: A key is unknown (the message names the nearest one) or not used here, or a value is impossible.
    """
    for key in config.keys() & ELSEWHERE.keys():
        raise ConfigError(f"{path}: {key} is not read from here: remove it from the JSON; {ELSEWHERE[key]}")
    try:
        Settings(**{key: value for key, value in config.items() if key not in computed})
    except ValidationError as error:
        faults = [fault for fault in error.errors() if fault["type"] == UNKNOWN or fault["input"] is not None]
        if faults:
            raise ConfigError(f"{path}: {described(faults[0], config, computed)}") from error


def described(fault: ErrorDetails, config: dict[str, Any], computed: Collection[str]) -> str:
    """Describes a fault in one line, with the full name of the key."""
    place = [str(part) for part in fault["loc"]]
    name = ".".join(place)
    if fault["type"] == UNKNOWN:
        known = names_of(place[:-1]) | (set() if place[1:] else set(computed))
        near = difflib.get_close_matches(place[-1], known, n=1, cutoff=0.0)
        return f"unknown key {name}; did you mean {'.'.join([*place[:-1], *near])}?"
    if fault["type"] == "model_type":
        return f"{name} is {found(config, place)!r}, but must be a section of settings"
    reason = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return f"{name} is {found(config, place)!r}: {reason}"


def found(config: Any, place: list[str]) -> Any:
    for part in place:
        config = config.get(part) if isinstance(config, dict) else config
    return config


def names_of(place: list[str]) -> set[str]:
    """Returns the keys of a section, by the names that stand in a JSON."""
    model: type[BaseModel] = Settings
    for part in place:
        field = next(f for name, f in model.model_fields.items() if part in (name, f.alias))
        kinds = (field.annotation, *get_args(field.annotation))
        model = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
    return {field.alias or name for name, field in model.model_fields.items()}


def without_nulls(section: dict[str, Any]) -> dict[str, Any]:
    """Returns a section without its nulls, at every level: a null is no setting."""
    return {
        key: without_nulls(value) if isinstance(value, dict) else value
        for key, value in section.items()
        if value is not None
    }


@contextmanager
def refusals() -> Iterator[None]:
    """Turns DeepSpeed's refusal of a combination of settings into one line.

    Raises:
        ConfigError: DeepSpeed's own code raised one of ``REFUSALS`` in the body of the ``with`` statement.
    """
    try:
        yield
    except REFUSALS as error:
        *_, (frame, _) = walk_tb(error.__traceback__)
        if Path(deepspeed.__file__).parent not in Path(frame.f_code.co_filename).parents:
            raise
        raise ConfigError(f"DeepSpeed refuses the settings of --ds_config: {first_line(error)}") from error
