"""The configuration of a run: typed sections, a YAML file, then the command line, which wins.

RunConfig
  model       vtok.config.ModelConfig
  data        which shards, and how a clip becomes a sample
  train       batch, steps, optimiser
  checkpoint  when to save
  validation  when to judge the model on held-out clips, and on which
  demo        make clips first, show a caption and a video at the end
"""

import difflib
import json
import sys
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from vtok.config import ConfigError, ModelConfig, require

Config = TypeVar("Config")

PRESETS = Path(__file__).parent / "configs"


@dataclass
class MixtureConfig:
    """
    Args:
        shards: folder or address of a dataset.
        weight: its share of the run's samples, relative to the others'. Give it to all of a mixture or to none: then
            each dataset counts with its number of samples.
    """

    shards: str
    weight: float | None = None

    def __post_init__(self):
        require(self.weight is None or self.weight > 0, "the weights of data.mixture must be positive")


@dataclass
class DataConfig:
    """
    Args:
        shards: folder that ``vtok-shards build`` wrote, or its address (``s3://``, ``hf://``, ``https://``, ...).
        mixture: instead of ``shards``: several datasets, each with a weight.
        root: instead of ``shards``: a folder of shards, of videos with a captions.csv, or of frame folders; raw clips
            are packed once, beside the output.
        seconds: length of the window of a clip that makes a sample.
        window: where it lies in a longer clip: ``drawn`` anew each time, or ``centred`` (what precomputed features and
            latents are made of).
        fit: ``crop`` or ``pad`` clips to the views' shapes.
        decoder: video decoding library.
        workers: loader processes per rank; 0 decodes in the training process.
        max_bad_share: share of samples that may turn out unreadable before the run stops.
        group_by_length: samples among which those of like length are put into one batch, a multiple of
            ``train.global_batch_size`` such as 100 of it; 0 leaves them as they come.
        cache_dir: where shards at an address are kept, on a disk of the machine; its processes share it.
        cache_gb: the most that shards may take there. About 50 are in use at once: with less room than they need,
            they are fetched again and again.
    """

    shards: str | None = None
    mixture: list[MixtureConfig] | None = None
    root: str | None = None
    seconds: float = 5.0
    window: Literal["drawn", "centred"] = "drawn"
    fit: Literal["crop", "pad"] = "crop"
    decoder: Literal["pyav", "decord"] = "pyav"
    workers: int = 2
    max_bad_share: float = 0.01
    group_by_length: int = 0
    cache_dir: str = "~/.cache/vtok/shards"
    cache_gb: float = 64.0

    def __post_init__(self):
        require(self.seconds > 0, "data.seconds must be positive")
        require(self.workers >= 0, "data.workers must not be negative")
        require(0 <= self.max_bad_share <= 1, "data.max_bad_share must lie in 0..1")
        require(self.group_by_length >= 0, "data.group_by_length must not be negative")
        require(self.cache_gb > 0, "data.cache_gb must be positive")
        weights = [part.weight for part in self.mixture or []]
        require(self.mixture != [], "data.mixture is empty")
        require(
            None not in weights or not any(weights), "give a weight to all datasets of data.mixture or to none of them"
        )


@dataclass
class OptimisationConfig:
    """
    Args:
        max_steps: optimiser steps of the run.
        epochs: instead of ``max_steps``: passes over the data.
        global_batch_size: samples per optimiser step, over all ranks.
        micro_batch_size: most samples a rank holds at once; the rest of its share is accumulated.
        lr, betas, eps, weight_decay: of AdamW; biases, norms and embeddings are not decayed.
        warmup_steps: linear warm-up of the learning rate.
        schedule: after the warm-up, ``constant`` or ``cosine`` down to a tenth.
        max_grad_norm: clipping of the global gradient norm.
        precision: ``auto`` is bf16 where the device is made for it (GPUs), fp32 on a CPU.
        ema_decay: of the average of the trained weights, the paper's 0.999; ``null`` keeps no average.
        ema_warmup: let the decay grow to that from a low one, for short runs.
        deterministic: use only operations that repeat to the last digit, of which some are slower on GPUs.
        max_nonfinite_steps: so many steps in a row with a loss or gradient that is not finite stop the run.
        timeout_minutes: after the first step, how long a rank waits for the others before it takes them for dead.
    """

    max_steps: int | None = None
    epochs: float | None = None
    global_batch_size: int = 16
    micro_batch_size: int = 1
    lr: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup_steps: int = 0
    schedule: Literal["constant", "cosine"] = "constant"
    max_grad_norm: float = 1.0
    max_nonfinite_steps: int = 10
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    ema_decay: float | None = 0.999
    ema_warmup: bool = False
    deterministic: bool = False
    timeout_minutes: float = 10.0

    def __post_init__(self):
        require(
            (self.max_steps is None) != (self.epochs is None), "set exactly one of train.max_steps and train.epochs"
        )
        require(self.max_steps is None or self.max_steps >= 1, "train.max_steps must be at least 1")
        require(self.epochs is None or self.epochs > 0, "train.epochs must be positive")
        require(self.global_batch_size >= 1, "train.global_batch_size must be at least 1")
        require(self.micro_batch_size >= 1, "train.micro_batch_size must be at least 1")
        require(self.lr > 0, "train.lr must be positive")
        require(self.ema_decay is None or 0 <= self.ema_decay < 1, "train.ema_decay must lie in 0..1, below 1")
        require(self.max_grad_norm > 0, "train.max_grad_norm must be positive")
        require(self.max_nonfinite_steps >= 1, "train.max_nonfinite_steps must be at least 1")
        require(self.warmup_steps >= 0, "train.warmup_steps must not be negative")
        require(self.timeout_minutes > 0, "train.timeout_minutes must be positive")


@dataclass
class TrainConfig(OptimisationConfig):
    """
    Args:
        calibration_batches: global batches whose frozen features give the visual head's mean and deviation.
    """

    calibration_batches: int = 8

    def __post_init__(self):
        super().__post_init__()
        require(self.calibration_batches >= 1, "train.calibration_batches must be at least 1")


@dataclass
class CheckpointConfig:
    """
    Args:
        every: steps between checkpoints; the last step always writes one.
        keep: how many of the latest stay on disk.
        keep_every: those of steps that are a multiple of it stay too.
    """

    every: int = 1000
    keep: int = 2
    keep_every: int | None = None

    def __post_init__(self):
        require(self.every >= 1, "checkpoint.every must be at least 1")
        require(self.keep >= 1, "checkpoint.keep must be at least 1")
        require(self.keep_every is None or self.keep_every >= 1, "checkpoint.keep_every must be at least 1")


@dataclass
class ValidationConfig:
    """
    Args:
        every: steps between validations, and one after the last step; 0 for none. By default 1000 where there is a
            held-out split.
        shards: folder or address of the held-out split. By default the ``val`` that ``vtok-shards build --val-share``
            writes beside the ``train`` of ``data.shards``.
        samples: the most that are used of it, from its first on.
        captions, videos: of so many of its samples the model's caption, and a video for the sample's own caption, go to
            TensorBoard.
        denoising_steps: of these videos.
    """

    every: int | None = None
    shards: str | None = None
    samples: int = 64
    captions: int = 2
    videos: int = 1
    denoising_steps: int = 20

    def __post_init__(self):
        require(self.every is None or self.every >= 0, "validation.every must not be negative")
        require(self.samples >= 1, "validation.samples must be at least 1")
        require(self.denoising_steps >= 1, "validation.denoising_steps must be at least 1")
        require(min(self.captions, self.videos) >= 0, "validation.captions and validation.videos must not be negative")


@dataclass
class DemoConfig:
    """
    Args:
        clips: training clips of moving shapes to render.
        held_out: further clips that are never trained on.
        prompt: what the video at the end is asked to show.
        seconds: its length.
        steps: its denoising steps.
    """

    clips: int = 64
    held_out: int = 4
    prompt: str = "A large red circle moves to the right."
    seconds: float = 2.0
    steps: int = 20

    def __post_init__(self):
        require(self.clips >= 1 and self.held_out >= 1, "demo.clips and demo.held_out must be at least 1")
        require(self.seconds > 0 and self.steps >= 1, "demo.seconds and demo.steps must be positive")


@dataclass
class RunConfig:
    """
    Args:
        seed: of every random draw.
        tiny_models: write tiny models with random weights into the output and train those, whatever ``weights`` say.
        demo: make the data and show the result; ``null`` for a run on given data.
    """

    train: TrainConfig
    seed: int = 0
    tiny_models: bool = False
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    demo: DemoConfig | None = None

    def __post_init__(self):
        window, batch = self.data.group_by_length, self.train.global_batch_size
        require(
            window % batch == 0,
            f"data.group_by_length {window} is not a multiple of train.global_batch_size {batch}: try "
            f"{-(-window // batch) * batch}",
        )


@dataclass
class RunArguments(Generic[Config]):
    """The command line of a run, beside the configuration itself."""

    config: Config
    preset: str
    ds_config: Path
    output: Path | None
    resume: Literal["auto"] | None
    profile: range | None = None  # steps to be traced


# Short forms of ``vtok-train``.
ALIASES = {
    "--data_root": "--data.root",
    "--backbone": "--model.tokeniser.backbone",
    "--token_dim": "--model.tokeniser.token_dim",
    "--lr": "--train.lr",
    "--batch_size": "--train.global_batch_size",
    "--epochs": "--train.epochs",
}


def parse_run_arguments(argv: list[str]) -> RunArguments[RunConfig]:
    """Command line to configuration: the YAML of ``--config`` first, then ``--section.key value``.

    Without ``--config`` the ``tiny`` preset is used if data is given, else the ``demo``.

    Raises:
        ConfigError: unknown key (the nearest known one is named), wrong type, missing file.
    """
    argv = [ALIASES.get(name, name) + eq + value for name, eq, value in (arg.partition("=") for arg in argv)]
    given = [arg.partition("=")[0] for arg in argv if arg.startswith("--")]
    if not {"--config", "-h", "--help"} & set(given):
        preset = "tiny" if {"--data.root", "--data.shards", "--data.mixture"} & set(given) else "demo"
        argv = ["--config", str(PRESETS / f"{preset}.yaml"), *argv]
    parser = ArgumentParser(prog="vtok-train", exit_on_error=False, description="Train VTok with DeepSpeed ZeRO-3.")
    return parse_with(parser, RunConfig, argv, "zero3.json", "model.tokeniser.clip_config.")


def parse_with(
    parser: ArgumentParser, kind: type[Config], argv: list[str], ds_config: str, free: str
) -> RunArguments[Config]:
    """The command line of a run whose configuration is a ``kind``.

    Args:
        ds_config: name of the DeepSpeed JSON that is used if none is given.
        free: keys that begin with it lie in a free-form dictionary.

    Raises:
        ConfigError: as :func:`parse_run_arguments`.
    """
    parser.add_argument("--config", action="config", help="YAML file of the run")
    parser.add_argument("--ds_config", default=str(Path(__file__).parents[1] / "deepspeed_configs" / ds_config))
    parser.add_argument("--output", default=None, help="folder of the run (default: runs/NAME)")
    parser.add_argument("--resume", choices=["auto"], help="continue from the newest complete checkpoint")
    parser.add_argument("--profile", metavar="STEPS", help="trace these steps on rank 0, such as 3-5")
    parser.add_argument("--local_rank", type=int, help="set by the deepspeed launcher; the environment is used")
    parser.add_class_arguments(kind)
    given = [arg.partition("=")[0] for arg in argv if arg.startswith("--")]
    # The two ways to say how long are alternatives: the command line's replaces the file's.
    if "--train.epochs" in given:
        argv += ["--train.max_steps", "null"]
    elif "--train.max_steps" in given:
        argv += ["--train.epochs", "null"]
    path = config_path(argv)
    check_known_keys(path, given, kind, free)
    try:
        arguments = parser.parse_args(argv)
        values = parser.instantiate(arguments)
    except (ArgumentError, ValueError) as error:
        raise ConfigError(one_line(error)) from error
    config = kind(**{f.name: values[f.name] for f in fields(kind)})
    output = Path(values["output"]) if values["output"] else None
    name = path.stem if path else "run"
    return RunArguments(
        config, name, Path(values["ds_config"]), output, values["resume"], step_range(values["profile"])
    )


def step_range(text: str | None) -> range | None:
    """``3-5`` is the steps 3, 4 and 5; ``7`` is step 7 alone.

    Raises:
        ConfigError: it is neither.
    """
    if text is None:
        return None
    ends = text.split("-")
    require(len(ends) <= 2 and all(map(str.isdigit, ends)), f"--profile takes steps such as 3-5, not {text}")
    steps = range(int(ends[0]), int(ends[-1]) + 1)
    require(0 < steps.start < steps.stop, f"--profile takes steps from 1 on, the first one first, not {text}")
    return steps


def config_path(argv: list[str]) -> Path | None:
    for place, arg in enumerate(argv):
        name, _, value = arg.partition("=")
        if name == "--config":
            return Path(value or (argv[place + 1] if place + 1 < len(argv) else ""))
    return None


def check_known_keys(path: Path | None, given: list[str], kind: type, free: str) -> None:
    """Refuse unknown keys of the YAML and the command line, with the nearest known name."""
    known = key_paths(kind)
    options = {"config", "ds_config", "output", "resume", "profile", "local_rank", "help"}
    for name in given:
        if (key := name.removeprefix("--")) not in known | options and not key.startswith(free):
            raise ConfigError(unknown_key(key, known | options, "--"))
    if path is not None:
        for key in yaml_paths(read_yaml(path)):
            if key not in known and not key.startswith(free):
                raise ConfigError(f"{path}: {unknown_key(key, known)}")


def unknown_key(key: str, known: set[str], dashes: str = "") -> str:
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    return f"unknown key {dashes}{key}; did you mean {dashes}{nearest[0]}?"


def key_paths(kind: type, prefix: str = "") -> set[str]:
    """Dotted names of every key of a configuration dataclass, sections included."""
    paths = set()
    for f in fields(kind):
        paths.add(prefix + f.name)
        for candidate in (f.type, *getattr(f.type, "__args__", ())):
            if is_dataclass(candidate):
                paths |= key_paths(candidate, f"{prefix}{f.name}.")
    return paths


def yaml_paths(tree: Any, prefix: str = "") -> list[str]:
    """Dotted names of every key of a YAML mapping, sections included."""
    if not isinstance(tree, dict):
        return []
    return [path for key, value in tree.items() for path in (f"{prefix}{key}", *yaml_paths(value, f"{prefix}{key}."))]


def read_yaml(path: Path) -> dict:
    """A YAML mapping, loaded safely.

    Raises:
        ConfigError: no such file, or not a mapping.
    """
    try:
        tree = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {getattr(error, 'strerror', error)}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {one_line(error)}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} should hold sections such as 'train:', found {type(tree).__name__}")
    return tree


def read_ds_config(path: Path) -> dict:
    """DeepSpeed's JSON as it stands in the file.

    Raises:
        ConfigError: no such file, or not JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except OSError as error:
        raise ConfigError(f"cannot read --ds_config {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"--ds_config {path} is not valid JSON: {error}") from error


def load_config(path: Path) -> RunConfig:
    """The configuration a run wrote to ``OUTPUT/config.yaml``."""
    return parse_run_arguments(["--config", str(path)]).config


def save_config(config: RunConfig, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(plain(asdict(config)), sort_keys=False))


def plain(value: Any) -> Any:
    """Tuples as lists, so that safe YAML can hold them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def die(program: str, error: BaseException, rank: int = 0) -> None:
    """End with exit code 2 and one line; the other ranks end silently."""
    if rank == 0:
        print(f"{program}: error: {one_line(error)}", file=sys.stderr)
    raise SystemExit(2)
