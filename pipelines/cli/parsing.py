"""The command line of a run: a YAML file's sections, then ``--section.key value``, which wins."""

import difflib
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from pipelines.cli.config_files import PRESETS, as_yaml, read_yaml
from pipelines.cli.errors import one_line
from pipelines.cli.initial_model import model_of
from pipelines.cli.steps import NAME
from pipelines.config import RunConfig
from vtok.config import ConfigError, VTokConfig, require

Config = TypeVar("Config")


@dataclass
class RunArguments(Generic[Config]):
    """The command line of a run, beside the configuration itself."""

    config: Config
    preset: str
    ds_config: Path
    output: Path | None
    resume: Literal["auto"] | None
    step: int | None = None  # of the checkpoint to resume; the newest if None
    profile: range | None = None  # steps to be traced
    dry_run: bool = False


# Short forms of ``vtok-train``.
ALIASES = {
    "--data_root": "--data.root",
    "--backbone": "--model.tokeniser.backbone",
    "--token_dim": "--model.tokeniser.token_dim",
    "--lr": "--train.lr",
    "--batch_size": "--train.global_batch_size",
    "--epochs": "--train.epochs",
    "--init_from": "--init.weights",
    "--init_ema": "--init.ema",
    "--init_strict": "--init.strict",
}
# What other trainers call it -> what it is here.
HABITS = {
    "deepspeed": "ds_config",
    "deepspeed_config": "ds_config",
    "resume_from_checkpoint": "resume auto",
    "output_dir": "output",
    "learning_rate": "train.lr",
    "per_device_train_batch_size": "train.micro_batch_size",
    "train_batch_size": "train.global_batch_size",
    "gradient_accumulation_steps": "train.global_batch_size (it follows from that, the ranks and the micro-batch)",
    "num_train_epochs": "train.epochs",
    "max_train_steps": "train.max_steps",
    "max_steps": "train.max_steps",
    "warmup_steps": "train.warmup_steps",
    "lr_warmup_steps": "train.warmup_steps",
    "weight_decay": "train.weight_decay",
    "save_steps": "checkpoint.every",
    "checkpointing_steps": "checkpoint.every",
    "save_total_limit": "checkpoint.keep",
    "bf16": "train.precision bf16",
    "mixed_precision": "train.precision",
    "dataloader_num_workers": "data.workers",
    "report_to": "track",
    "gradient_checkpointing": "model.mllm.gradient_checkpointing",
    "model_name_or_path": "model.mllm.weights",
    "pretrained_model_name_or_path": "model.mllm.weights",
}
# Keys below these are no settings of ours: they name what is in a library's configuration, or parts.
FREE = ("model.tokeniser.clip_config.", "model.tokeniser.codec_config.", "train.parts.")
# What the parser says of a value of the wrong type.
EXPECTED = re.compile(r"Expected an? (?:<class '(\w+)'>|typing\.Literal\[([^\]]*)\])")
WRONG_TYPE = re.compile(
    r'Parser key "(?P<key>[^"]+)": (?:Does not validate against any of the Union subtypes Subtypes: \[.*?\] Errors: )?'
    rf"(?P<kinds>(?:(?:- )?{EXPECTED.pattern}\.? )+)(?:Given value type: .*? )?(?:Got|Given) value: (?P<value>.*)"
)
NO_EFFECT = "has no effect beside train.parts, which has a rate for each part: remove one of them"
CLIP_L = "openai/clip-vit-large-patch14-336"


def parse_run_arguments(argv: list[str] | None = None) -> RunArguments[RunConfig]:
    """Command line to configuration: the YAML of ``--config`` first, then ``--section.key value``.

    Without ``--config`` the ``tiny`` preset is used if data is given, else the ``demo``. ``--backbone clip`` is then
    CLIP-L/336, unless ``--model.tokeniser.weights`` says otherwise. A run that is resumed takes its own. A run that
    starts from a trained VTok takes the model from there.

    Args:
        argv: the process's own command line if omitted.

    Raises:
        ConfigError: unknown key (the nearest known one is named), wrong type, missing file.
    """
    argv = sys.argv[1:] if argv is None else argv
    argv = [ALIASES.get(name, name) + eq + value for name, eq, value in (arg.partition("=") for arg in argv)]
    given = [arg.partition("=")[0] for arg in argv if arg.startswith("--")]
    if not {"--config", "-h", "--help"} & set(given):
        preset = "tiny" if {"--data.root", "--data.shards", "--data.mixture"} & set(given) else "demo"
        published = []
        if "clip" in values_of("--model.tokeniser.backbone", argv) and "--model.tokeniser.weights" not in given:
            published = ["--model.tokeniser.weights", CLIP_L]
        if places := values_of("--init.weights", argv):
            model = model_of(places[-1])
            published = ["--model", json.dumps(model)] if model else published
        resumed = values_of("--resume", argv)
        runs = [named_checkpoint(place)[0] for place in resumed if place != "auto"]
        runs += [Path(output).expanduser() for output in values_of("--output", argv) if resumed]
        own = [run / "config.yaml" for run in runs]
        config = next((path for path in own if path.is_file()), PRESETS / f"{preset}.yaml")
        settings = ["--tiny_models", "false"] if "--model" in published else []
        argv = ["--config", str(config), *settings, *published, *argv]
    parser = ArgumentParser(
        prog="vtok-train", print_config=None, exit_on_error=False, description="Train VTok with DeepSpeed ZeRO-3."
    )
    arguments = parse_with(parser, RunConfig, argv, "zero3.json", FREE)
    require_one_rate(arguments.config, argv)
    require_architectures(arguments.config.model.tokeniser)
    return arguments


def require_architectures(tokeniser: VTokConfig) -> None:
    """Checks the settings in ``FREE`` that describe an architecture; raises ConfigError if one is wrong."""
    if tokeniser.clip_config:
        from vtok.feature_extractor.clip import random_architecture  # only now: this imports the libraries

        random_architecture(tokeniser.clip_config)
    if tokeniser.codec_config:
        from vtok.motion_codec import codec_config  # only now, as well

        codec_config(tokeniser.codec_config)


def require_one_rate(config: RunConfig, argv: list[str]) -> None:
    """Refuses ``train.lr`` beside ``train.parts``, which has rates of its own.

    The command line's ``train.parts`` replaces a file's ``train.lr``. A file that a run wrote has both.

    Raises:
        ConfigError: The command line gives the rate though parts train, or a user's file gives both.
    """
    parts = [config.train.parts, *((stage.get("train") or {}).get("parts", {}) for stage in config.stages or [])]
    if None in parts:  # something trains at train.lr
        return
    require(not values_of("--train.lr", argv), f"--train.lr {NO_EFFECT}")
    for path in config_paths(argv):
        written = read_yaml(path).get("train", {})
        by_run = {"max_steps", "epochs"} <= written.keys()  # a user's file may give only one of them
        both = written.get("lr") is not None and written.get("parts") is not None
        require(by_run or not both, f"{path}: train.lr {NO_EFFECT}")


def parse_with(
    parser: ArgumentParser, kind: type[Config], argv: list[str], ds_config: str, free: str | tuple[str, ...]
) -> RunArguments[Config]:
    """The command line of a run whose configuration is a ``kind``.

    Args:
        ds_config: name of the DeepSpeed JSON that is used if none is given.
        free: keys that begin with it lie in a free-form dictionary.

    Raises:
        ConfigError: as :func:`parse_run_arguments`.
    """
    parser.add_argument("--config", action="config", help="YAML file of the run")
    parser.add_argument("--ds_config", default=str(Path(__file__).parents[2] / "deepspeed_configs" / ds_config))
    parser.add_argument("--output", default=None, help="folder of the run (default: runs/NAME)")
    parser.add_argument("--resume", help="auto: continue from the newest checkpoint; or the folder of one")
    parser.add_argument("--step", type=int, help="with --resume auto: continue from the checkpoint of this step")
    parser.add_argument("--profile", metavar="STEPS", help="trace these steps on rank 0, such as 3-5")
    parser.add_argument("--dry_run", action="store_true", help="check everything up to the first step; write nothing")
    parser.add_argument("--print_config", action="store_true", help="print the whole configuration as YAML, and end")
    parser.add_argument("--local_rank", type=int, help="set by the deepspeed launcher; the environment is used")
    parser.add_class_arguments(kind)
    given = [arg.partition("=")[0] for arg in argv if arg.startswith("--")]
    # The two ways to say how long are alternatives: the command line's replaces the file's.
    require(
        not {"--train.epochs", "--train.max_steps"} <= set(given),
        "set only one of --train.max_steps and --train.epochs",
    )
    if "--train.epochs" in given:
        argv += ["--train.max_steps", "null"]
    elif "--train.max_steps" in given:
        argv += ["--train.epochs", "null"]
    paths = config_paths(argv)
    check_known_keys(paths, given, kind, free)
    try:
        arguments = parser.parse_args(argv)
        require_sections(arguments, kind)
        require_finite(arguments)
        values = parser.instantiate(arguments)
    except (ArgumentError, ValueError) as error:
        raise ConfigError(plain_words(one_line(error))) from error
    config = with_home(kind(**{f.name: values[f.name] for f in fields(kind)}))
    if values["print_config"]:
        print(as_yaml(config), end="")
        raise SystemExit
    resume, output, step = resumption(values)
    name = paths[0].stem if paths else "run"
    steps = step_range(values["profile"])
    ds_config = Path(values["ds_config"]).expanduser()
    return RunArguments(config, name, ds_config, output, resume, step, steps, values["dry_run"])


def require_sections(arguments: Namespace, kind: type, prefix: str = "") -> None:
    """Refuses a section that is given as one value, such as ``train: 3``.

    Raises:
        ConfigError: A section holds no settings.
    """
    for f in fields(kind):
        if is_dataclass(f.type):
            name, value = f"{prefix}{f.name}", arguments.get(f.name)
            setting = fields(f.type)[0].name
            if not isinstance(value, Namespace):
                raise ConfigError(f"{name} is {value}, but takes settings: write {name}: {{{setting}: ...}}")
            require_sections(value, f.type, f"{name}.")


def require_finite(values: Any, name: str = "") -> None:
    """Refuses an infinite number, and what is none (``.inf`` and ``.nan`` in a YAML), at every level.

    Raises:
        ConfigError: There is one; the message names its setting.
    """
    if isinstance(values, (Mapping, Namespace)):
        for key, value in values.items():
            require_finite(value, f"{name}.{key}" if name else str(key))
    elif isinstance(values, (list, tuple)):
        for value in values:
            require_finite(value, name)
    else:
        finite = not isinstance(values, float) or math.isfinite(values)
        require(finite, f"{name} is {values}, but must be finite: write a number")


def plain_words(message: str) -> str:
    """The parser's message about a value of the wrong type, as ``train.max_steps: expected int or null, not 3.5``."""
    found = WRONG_TYPE.fullmatch(message)
    if not found:
        return message
    kinds = [(kind or words).replace("NoneType", "null") for kind, words in EXPECTED.findall(found["kinds"])]
    return f"{found['key']}: expected {' or '.join(kinds)}, not {found['value']}"


def resumption(values: Mapping[str, Any]) -> tuple[Literal["auto"] | None, Path | None, int | None]:
    """How and where a run continues: ``--resume auto``, the output, and the step of the checkpoint, if one is named.

    Raises:
        ConfigError: ``--resume`` is neither ``auto`` nor the folder of a checkpoint of the output.
    """
    output = Path(values["output"]).expanduser() if values["output"] else None
    resume, step = values["resume"], values["step"]
    require(step is None or resume == "auto", "--step goes with --resume auto")
    if resume in (None, "auto"):
        return resume, output, step
    run, step = named_checkpoint(resume)
    require(
        output is None or output.absolute() == run,
        f"--resume {resume} is not a checkpoint of --output {output}: leave one of them out",
    )
    return "auto", output or run, step


def named_checkpoint(resume: str) -> tuple[Path, int]:
    """The run and the step of a checkpoint's folder that ``--resume`` names.

    Raises:
        ConfigError: It names something else.
    """
    folder = Path(resume).expanduser().absolute()
    named = NAME.fullmatch(folder.name)
    if named is None or folder.parent.name != "checkpoints":
        raise ConfigError(
            f"--resume takes auto, or a folder such as RUN/checkpoints/step_00002000, not {resume}; --resume auto "
            "--output RUN goes on from a run's newest checkpoint"
        )
    return folder.parent.parent, int(named[1])


def with_home(config: Config) -> Config:
    """The configuration, in which a ``~`` at the beginning of a path is the home folder."""
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            with_home(value)
        elif isinstance(value, str) and value.startswith("~/") and f.name != "cache_dir":  # that of every machine
            setattr(config, f.name, str(Path(value).expanduser()))
        elif isinstance(value, list):
            for item in filter(is_dataclass, value):
                with_home(item)
    return config


def load_config(path: Path, changes: Sequence[str] = ()) -> RunConfig:
    """The configuration a run wrote to ``OUTPUT/config.yaml``; ``changes`` are ``--section.key=value``."""
    return parse_run_arguments(["--config", str(path), *changes]).config


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


def in_words(argv: Sequence[str]) -> list[str]:
    """The command line with each ``--option=value`` as two words."""
    return [word for arg in argv for word in (arg.split("=", 1) if arg.startswith("--") else [arg])]


def config_paths(argv: list[str]) -> list[Path]:
    return [Path(value) for value in values_of("--config", argv)]


def values_of(option: str, argv: list[str]) -> list[str]:
    """What the command line gives for an option, as ``--option value`` or ``--option=value``."""
    found = []
    for place, arg in enumerate(argv):
        name, _, value = arg.partition("=")
        if name == option:
            found.append(value or (argv[place + 1] if place + 1 < len(argv) else ""))
    return found


def check_known_keys(paths: list[Path], given: list[str], kind: type, free: str | tuple[str, ...]) -> None:
    """Refuse unknown keys of the YAML files and the command line, with the nearest known name."""
    known = key_paths(kind)
    options = {
        "config",
        "ds_config",
        "output",
        "resume",
        "step",
        "profile",
        "dry_run",
        "print_config",
        "local_rank",
        "help",
    }
    for name in given:
        if (key := name.removeprefix("--")) not in known | options and not key.startswith(free):
            raise ConfigError(unknown_key(key, known | options, "--"))
    for path in paths:
        for key in yaml_paths(read_yaml(path, kind)):
            if key not in known and not key.startswith(free):
                raise ConfigError(f"{path}: {unknown_key(key, known)}")


def unknown_key(key: str, known: set[str], dashes: str = "") -> str:
    if key.replace("-", "_") in HABITS:
        return f"unknown key {dashes}{key}; here it is --{HABITS[key.replace('-', '_')]}"
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
