"""Finds the output folder and the shards of a run. Only rank 0 runs this, except what opens shards."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from data_tools.errors import DataError
from data_tools.packing import build_shards
from data_tools.packing.sources import Columns, TableSource, table_of
from data_tools.packing.sources.files import walk
from data_tools.shards import ShardReader
from data_tools.shards.remote import Cache, is_remote
from data_tools.streaming.mixture import Mixture
from pipelines.cli.checks import require_new_folder
from pipelines.cli.parsing import RunArguments
from pipelines.config import MixtureConfig, RunConfig
from pipelines.engine import ownership
from pipelines.engine.demo_clips import pack_demo_clips
from pipelines.engine.saving.folders import begun, begun_alone, begun_stages
from vtok.config import ConfigError, require


def claim_output(arguments: RunArguments) -> Path:
    """Locks the run's folder for this process (see :mod:`pipelines.engine.ownership`) and returns it.

    The folder is ``--output`` if given, else ``runs/NAME``, with a number appended if that exists.

    Raises:
        ConfigError: ``--output`` holds a run and ``--resume`` is not given, or another process uses the folder.
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
    """Returns the folder that :func:`claim_output` would lock.

    Raises:
        ConfigError: It cannot be made or written to; it holds a run and ``--resume`` is not given; or the run to resume
            is of another kind.
    """
    output = arguments.output or default_output(arguments)
    require_new_folder("--output", output)
    if arguments.resume:
        require_same_kind(output, bool(getattr(arguments.config, "stages", None)))
    elif begun(output):
        raise ConfigError(f"{output} already holds a run: pass --resume auto or another --output")
    return output


def default_output(arguments: RunArguments) -> Path:
    """Returns ``runs/NAME``, with a number appended if that exists and no run is resumed."""
    first = Path("runs") / arguments.preset
    if arguments.resume or not first.exists():
        return first
    return next(path for n in range(2, 10**6) if not (path := first.with_name(f"{first.name}-{n}")).exists())


def require_same_kind(output: Path, in_stages: bool) -> None:
    """Checks that a run which goes on in a folder has stages if the run in the folder has them, and else has none.

    Raises:
        ConfigError: It does not. It would start at step 0, beside the run that is there.
    """
    found = begun_stages(output)
    if found and not in_stages:
        raise ConfigError(
            f"{output} holds a run in stages ({found[-1].name}), and this configuration has no stages: leave out "
            "--config, set stages, or choose another --output"
        )
    if in_stages and begun_alone(output):
        raise ConfigError(
            f"{output} holds a run without stages, and this configuration has stages: leave out --config, or choose "
            "another --output"
        )


def find_shards(config: RunConfig, output: Path) -> list[str]:
    """Returns folders or addresses of shards. Raw clips and the demo's clips are packed into shards first.

    Raises:
        ConfigError: The configuration names no data, or names them in more than one way.
        DataError: The data cannot be used.
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
    open_shards(config, shards)  # raises before anything else is written
    return shards


def open_shards(config: RunConfig, shards: list[str]) -> ShardReader | Mixture:
    """Opens the run's data.

    Args:
        config: Configuration of the run.
        shards: Result of :func:`find_shards`.

    Raises:
        DataError: The data cannot be used.
    """
    data = config.data
    readers = [open_dataset(config, place) for place in shards]
    if not data.mixture:
        return readers[0]
    weights = [part.weight for part in data.mixture]
    return Mixture(readers, None if None in weights else weights)


def open_dataset(config: RunConfig, place: str) -> ShardReader:
    """Opens a folder or an address of shards. Shards at an address go through the run's cache."""
    return ShardReader(place, Cache(Path(config.data.cache_dir), int(config.data.cache_gb * 1e9)))


class HeldOut(NamedTuple):
    """A held-out split.

    Attributes:
        source: The dataset that it is of.
        reader: Its samples.
        weight: The dataset's weight among the run's.
    """

    source: MixtureConfig
    reader: ShardReader
    weight: float = 1.0


def find_held_out(config: RunConfig, shards: list[str]) -> list[str | None]:
    """Returns the held-out split of each of the run's datasets, ``None`` for one without; or ``validation.shards``.

    A dataset's split is the ``validation`` of its entry in ``data.mixture``, else the ``val`` beside its ``train``.

    Raises:
        ConfigError: ``validation.every`` is set, but there is no held-out split; or splits are named twice.
        DataError: A split cannot be used.
    """
    named = [source.validation for source in config.data.sources]
    if config.validation.every == 0:
        return []
    if config.validation.shards and any(named):
        raise ConfigError("set validation.shards, or the validation of datasets in data.mixture, not both")
    if config.validation.shards:
        found: list[str | None] = [config.validation.shards]
    else:
        found = [place or split_beside(config, train) for place, train in zip(named, shards)]
    for place in filter(None, found):
        open_dataset(config, place)
    if config.validation.every and not any(found):
        raise ConfigError(
            "validation.every is set, but there is no held-out split: pass --validation.shards DIR (vtok-shards build "
            "--val-share 0.01 makes DIR/train and DIR/val) or --validation.every 0"
        )
    return found


def split_beside(config: RunConfig, train: str) -> str | None:
    """Returns the held-out split ``val`` beside a dataset ``train``, if there is one.

    Some servers answer alike for what is missing and for what may not be read. So a line says why an address has none.
    """
    if Path(train).name != "train":
        return None
    if not is_remote(train):
        beside = Path(train).with_name("val")
        return str(beside) if (beside / "manifest.json").exists() else None
    address = train.rstrip("/").removesuffix("train") + "val"
    try:
        open_dataset(config, address)
    except DataError as problem:
        print(f"{train} has no validation: {problem}", flush=True)
        return None
    return address


def open_held_out(config: RunConfig, reader: ShardReader | Mixture, places: list[str | None]) -> list[HeldOut]:
    """Opens the held-out splits of a run.

    Args:
        config: Configuration of the run.
        reader: The run's data.
        places: Result of :func:`find_held_out`.
    """
    if config.validation.shards:
        return [HeldOut(MixtureConfig(place), open_dataset(config, place)) for place in places if place]
    weights = reader.weights if isinstance(reader, Mixture) else [1.0]
    found = zip(config.data.sources, places, weights)
    return [HeldOut(source, open_dataset(config, place), weight) for source, place, weight in found if place]


def shards_of(root: str, output: Path) -> str:
    """Returns ``root`` if it holds shards. Else packs its clips once, beside the output, and returns that folder.

    The name of the folder depends on the state of all clips and texts. So a corrected ``captions.csv`` is packed anew.
    """
    if is_remote(root) or Path(root, "manifest.json").exists():
        return root
    place = Path(root).resolve()
    require_outside(place, output, "data.root")
    name = f"shards-{place.name}-{_digest(str(place))}"
    shards = output.parent / f"{name}-{state_of(place)}"
    if not (shards / "manifest.json").exists():
        if list(output.parent.glob(f"{name}-*/manifest.json")):
            print(f"{place} has changed since it was packed: packing it again into {shards}", flush=True)
        build_shards(place, shards)
    return str(shards)


def require_outside(clips: Path, output: Path, setting: str) -> None:
    """Raises ConfigError if an output would lie among clips: its own files would be taken for clips."""
    inside = clips.is_dir() and output.resolve().is_relative_to(clips.resolve())
    require(
        not inside, f"{output} lies in {setting}, where its files would be taken for clips: choose another --output"
    )


def state_of(place: Path) -> str:
    """Returns a hash of names, sizes and modification times of all files of a folder or table, and of a table's clips.

    Raises:
        DataError: The table cannot be read, or a folder has several.
    """
    files = sorted(walk(place)) if place.is_dir() else [place]
    found = ((file.relative_to(place), file.stat()) for file in files if file.is_file())
    told = [f"{name} {status.st_size} {status.st_mtime_ns}" for name, status in found]
    table = table_of(place)  # which may name files anywhere
    return _digest("\n".join([*told, TableSource(table, Columns()).state] if table else told))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
