"""Checks a DeepSpeed JSON: its keys, types and values at every level.

DeepSpeed ignores unknown keys at the top, and answers a wrong type with a traceback from its middle. So the keys that
this engine can use are listed here. Those of the ZeRO section, of the precisions and of the monitors are DeepSpeed's
own. A null is no setting, and so is ``"auto"``, which the JSONs of other trainers have.
"""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Any, Literal, get_args

import deepspeed
from deepspeed.comm.config import CommsLoggerConfig
from deepspeed.monitor.config import CometConfig, CSVConfig, TensorBoardConfig, WandbConfig
from deepspeed.runtime.config import DeepSpeedConfigError
from deepspeed.runtime.config_utils import DeepSpeedConfigModel
from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
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
    """The keys of a JSON. The run computes the first six, so they may only say what it computes."""

    train_batch_size: int | None = None
    train_micro_batch_size_per_gpu: int | None = None
    gradient_accumulation_steps: int | None = None
    gradient_clipping: float | None = None
    bf16: DeepSpeedBF16Config = {}
    fp16: DeepSpeedFP16Config = {}
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
    "amp": "set train.precision",
    "torch_autocast": "set train.precision",
    "activation_checkpointing": "set model.mllm.gradient_checkpointing",
    "elasticity": "a run resumes on any number of ranks without it",
    "checkpoint": "set checkpoint.every and checkpoint.keep",
    "seed": "set seed",
}


# Features of the ZeRO section that need an engine of their own.
UNUSABLE = {"zenflow": "remove it"}

# Settings of which ``"auto"`` is a value.
WITH_AUTO = ("zero_hpz_partition_size", "keep_in_fp32_modules")


def settings_of(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of a JSON, each with the type that DeepSpeed has for it.

    Args:
        path: The file, for the message.
        config: The JSON.

    Raises:
        ConfigError: A key is unknown (the message names the nearest one) or not used here, or a value is impossible.
    """
    for key in config.keys() & ELSEWHERE.keys():
        raise ConfigError(f"{path}: {key} is not read from here: remove it from the JSON; {ELSEWHERE[key]}")
    given = without_nulls(config)
    require_sections(path, given, Settings)
    unknown = [fault for fault in faults(config) if fault["type"] == UNKNOWN]  # a null may have an unknown name
    for fault in (*unknown, *faults(given)):
        raise ConfigError(f"{path}: {described(fault, config)}")
    for key in given.get("zero_optimization", {}).keys() & UNUSABLE.keys():
        raise ConfigError(f"{path}: zero_optimization.{key} does not work with this engine: {UNUSABLE[key]}")
    return typed(Settings(**given), given)


def faults(config: dict[str, Any]) -> list[ErrorDetails]:
    """Returns what is wrong with a JSON."""
    try:
        Settings(**config)
    except ValidationError as error:
        return error.errors()
    return []


def require_sections(path: Path, given: dict[str, Any], model: type[BaseModel], prefix: str = "") -> None:
    """Raises ConfigError if one value stands in place of a section."""
    for key, value in given.items():
        inner = section_of(model, key)
        if inner and not isinstance(value, dict):
            raise ConfigError(f"{path}: {prefix}{key} is {value!r}, but must be a section of settings")
        if inner:
            require_sections(path, value, inner, f"{prefix}{key}.")


def typed(section: BaseModel, given: dict[str, Any]) -> dict[str, Any]:
    """Returns the given settings of a section as DeepSpeed reads them, without those that are ``"auto"``."""
    values = section.model_dump(mode="json", warnings=False)
    values |= section.model_dump(mode="json", warnings=False, by_alias=True)
    result = {}
    for key, value in given.items():
        inner = getattr(section, key, None)
        if isinstance(inner, BaseModel):
            result[key] = typed(inner, value)
        elif value != "auto":
            result[key] = values.get(key, value)  # DeepSpeed moves the value of a deprecated key elsewhere
        elif key in WITH_AUTO:
            result[key] = value
    return result


def differences(
    settings: dict[str, Any], needed: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, object, object]]:
    """Yields the settings that have another value than the needed one: name, value and needed value."""
    for key, value in settings.items():
        if isinstance(needed.get(key), dict):
            yield from differences(value, needed[key], f"{prefix}{key}.")
        elif key in needed and value != needed[key]:
            yield prefix + key, value, needed[key]


def described(fault: ErrorDetails, config: dict[str, Any]) -> str:
    """Describes a fault in one line, with the full name of the key."""
    place = [str(part) for part in fault["loc"]]
    name = ".".join(place)
    if fault["type"] == UNKNOWN:
        near = difflib.get_close_matches(place[-1], names_of(place[:-1]), n=1, cutoff=0.0)
        return f"unknown key {name}; did you mean {'.'.join([*place[:-1], *near])}?"
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
        model = section_of(model, part) or model
    return {field.alias or name for name, field in model.model_fields.items()}


def section_of(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    """Returns the model of a key that is a section, or None if it is a value or unknown."""
    for name, field in model.model_fields.items():
        if key in (name, field.alias):
            kinds = (field.annotation, *get_args(field.annotation))
            return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    return None


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
