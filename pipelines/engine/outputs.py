"""Where a run writes, and where its shards are. All but ``open_shards`` runs on rank 0 only."""

import hashlib
from pathlib import Path

from data_tools.packing import build_shards
from data_tools.packing.sources.files import walk
from data_tools.shards import ShardReader
from data_tools.shards.remote import Cache, is_remote
from data_tools.streaming.mixture import Mixture
from pipelines.cli.parsing import RunArguments
from pipelines.config import RunConfig
from pipelines.engine import ownership
from pipelines.engine.demo_clips import pack_demo_clips
from pipelines.engine.saving.checkpoint import begun
from vtok.config import ConfigError


def claim_output(arguments: RunArguments) -> Path:
    """Takes the run's folder for this process (see :mod:`pipelines.engine.ownership`): the one asked for, else
    ``runs/NAME``, numbered where that is taken.

    Raises:
        ConfigError: the folder asked for holds a run and resuming was not asked for, or is another process's.
    """
    while True:
        output = choose_output(arguments)
        try:
            ownership.own(output)
            return output
        except ownership.InUse:
            if arguments.output or arguments.resume:
                raise


def choose_output(arguments: RunArguments) -> Path:
    """The folder that :func:`claim_output` takes; errors as there."""
    if arguments.output:
        if not arguments.resume and begun(arguments.output):
            raise ConfigError(f"{arguments.output} already holds a run: pass --resume auto or another --output")
        return arguments.output
    first = Path("runs") / arguments.preset
    if arguments.resume or not first.exists():
        return first
    return next(path for n in range(2, 10**6) if not (path := first.with_name(f"{first.name}-{n}")).exists())


def find_shards(config: RunConfig, output: Path) -> list[str]:
    """Folders or addresses of shards, built first where the data are raw clips or the demo's own.

    Raises:
        ConfigError: no data are given.
        DataError: they cannot be used.
    """
    data = config.data
    if sum(map(bool, (data.shards, data.mixture, data.root))) > 1:
        raise ConfigError("set only one of data.shards, data.mixture and data.root")
    if data.shards:
        shards = [data.shards]
    elif data.mixture:
        shards = [part.shards for part in data.mixture]
    elif data.root:
        shards = [shards_of(data.root, output)]
    elif config.demo:
        shards = [str(pack_demo_clips(config.demo, config.seed, output))]
    else:
        raise ConfigError("no data: pass --data.shards DIR (see vtok-shards build) or --data_root DIR")
    open_shards(config, shards)  # says what is wrong before anything is written
    return shards


def open_shards(config: RunConfig, shards: list[str]) -> ShardReader | Mixture:
    """The run's data, at the folders or addresses that :func:`find_shards` gave.

    Raises:
        DataError: they cannot be used.
    """
    data = config.data
    readers = [open_dataset(config, place) for place in shards]
    if not data.mixture:
        return readers[0]
    weights = [part.weight for part in data.mixture]
    return Mixture(readers, None if None in weights else weights)


def open_dataset(config: RunConfig, place: str) -> ShardReader:
    """One folder or address of shards, the latter through the run's cache."""
    return ShardReader(place, Cache(Path(config.data.cache_dir).expanduser(), int(config.data.cache_gb * 1e9)))


def find_held_out(config: RunConfig, shards: list[str]) -> str | None:
    """The held-out split to validate on: the one asked for, else the ``val`` beside a ``train``, if there is one.

    Raises:
        ConfigError: validation is asked for, and there is none.
        DataError: it cannot be used.
    """
    place = config.validation.shards
    beside = Path(shards[0]).with_name("val")
    if place is None and len(shards) == 1 and Path(shards[0]).name == "train" and (beside / "manifest.json").exists():
        place = str(beside)
    if config.validation.every == 0:
        return None
    if place is not None:
        open_dataset(config, place)
    elif config.validation.every:
        raise ConfigError(
            "validation.every is set, but there is no held-out split: pass --validation.shards DIR (vtok-shards build "
            "--val-share 0.01 makes DIR/train and DIR/val) or --validation.every 0"
        )
    return place


def shards_of(root: str, output: Path) -> str:
    """``root`` itself if it holds shards; else shards of its clips, built once beside the output.

    The folder of the shards is named by the state of the clips and texts: a corrected ``captions.csv`` gives another.
    """
    if is_remote(root) or Path(root, "manifest.json").exists():
        return root
    place = Path(root).resolve()
    name = f"shards-{place.name}-{_digest(str(place))}"
    shards = output.parent / f"{name}-{_digest(_state(place))}"
    if not (shards / "manifest.json").exists():
        if list(output.parent.glob(f"{name}-*/manifest.json")):
            print(f"{place} has changed since it was packed: packing it again into {shards}", flush=True)
        build_shards(place, shards)
    return str(shards)


def _state(place: Path) -> str:
    """Names, sizes and times of all files of a folder or table, in order."""
    files = sorted(walk(place)) if place.is_dir() else [place]
    found = ((file.relative_to(place), file.stat()) for file in files if file.is_file())
    return "\n".join(f"{name} {status.st_size} {status.st_mtime_ns}" for name, status in found)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
