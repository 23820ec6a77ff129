"""Where a run writes, and where its shards are. Runs on rank 0 only."""

import hashlib
from pathlib import Path

from data_tools.build import build_shards
from data_tools.shards import ShardReader
from pipelines import demo
from pipelines.config import RunArguments, RunConfig
from vtok.config import ConfigError


def choose_output(arguments: RunArguments) -> Path:
    """The run's folder: the one asked for, else ``runs/NAME``, numbered where that is taken.

    Raises:
        ConfigError: the folder asked for holds a run, and resuming was not asked for.
    """
    if arguments.output:
        if not arguments.resume and (arguments.output / "config.yaml").exists():
            raise ConfigError(f"{arguments.output} already holds a run: pass --resume auto or another --output")
        return arguments.output
    first = Path("runs") / arguments.preset
    if arguments.resume or not first.exists():
        return first
    return next(path for n in range(2, 10**6) if not (path := first.with_name(f"{first.name}-{n}")).exists())


def find_shards(config: RunConfig, output: Path) -> Path:
    """The folder of shards, built first where the data are raw clips or the demo's own.

    Raises:
        ConfigError: no data are given.
        DataError: they cannot be used.
    """
    if config.data.shards and config.data.root:
        raise ConfigError("set only one of data.shards and data.root")
    if config.data.shards:
        shards = Path(config.data.shards)
    elif config.data.root:
        shards = shards_of(Path(config.data.root), output)
    elif config.demo:
        shards = demo.prepare(config.demo, config.seed, output)
    else:
        raise ConfigError("no data: pass --data.shards DIR (see vtok-shards build) or --data_root DIR")
    ShardReader(shards)  # says what is wrong before anything is written
    return shards


def shards_of(root: Path, output: Path) -> Path:
    """``root`` itself if it holds shards; else shards of its clips, built once beside the output."""
    if (root / "manifest.json").exists():
        return root
    name = hashlib.blake2b(str(root.resolve()).encode(), digest_size=4).hexdigest()
    shards = output.parent / f"shards-{root.resolve().name}-{name}"
    if not (shards / "manifest.json").exists():
        build_shards(root, shards)
    return shards
