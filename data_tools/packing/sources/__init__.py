"""The inputs of a build: captioned clips in one of these layouts.

tables.py   a table (captions.csv, .jsonl, .json, .parquet) that names videos, one or several rows per clip
files.py    videos, each with a .txt or .json of the same name beside it, at any depth of folders
frames.py   folders NAME/frames/frame_0000.jpg … with NAME/caption.txt, at any depth of folders
tars.py     WebDataset tars, to be packed again

clip.py     the interface of all layouts: a sequence of items, each of which loads one clip
naming.py   the file that a table names
spans.py    the part of a video that is a clip
natural.py  the order of numbered files

`data_tools.rows` reads the rows of tables, `data_tools.texts` reads captions, questions and conversations. `discover`
lists the clips without opening them. An input that is unusable as a whole raises DataError. A fault of a single clip
raises BadVideo when the clip is loaded.
"""

import sys
from pathlib import Path

from data_tools.errors import DataError
from data_tools.packing.sources.clip import Clip, Item, ItemList, Source
from data_tools.packing.sources.files import PLAN, find_videos, places
from data_tools.packing.sources.frames import find_frame_folders
from data_tools.packing.sources.tables import TableSource
from data_tools.packing.sources.tars import TarSource
from data_tools.rows import TABLE_ENDINGS
from data_tools.texts import Columns

__all__ = ["COMPRESSED", "Clip", "Columns", "Item", "Source", "TableSource", "discover", "table_of"]

COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")


def discover(input: str | Path, columns: Columns = Columns()) -> Source:
    """The clips of a folder, a table file or a tar, in an order that depends on the input alone.

    Raises:
        DataError: the input has none of the layouts, or is ambiguous.
    """
    path = Path(input)
    if table := table_of(path):
        return TableSource(table, columns)
    if path.is_file():
        if path.suffix.lower() == ".tar":
            return TarSource(path.parent, [path], columns)
        raise DataError(f"{path} is neither a table ({', '.join(TABLE_ENDINGS)}) nor a tar: give one, or a folder")
    if not path.is_dir():
        raise DataError(f"{path} is not a folder: give the folder that holds the clips")
    below = dict(places(path, _tell_left_out))
    files = [place / name for place, names in below.items() for name in names]
    tars = sorted(file for file in files if file.suffix.lower() == ".tar")
    frames = find_frame_folders(path, below, columns)
    inside = {item.folder for item in frames}
    others = [file for file in files if inside.isdisjoint(file.parents)] if inside else files
    clips = [*frames, *(find_videos(path, others, columns) or [])]
    if tars and clips:
        raise DataError(f"{path} holds tars ({tars[0]}) and clips ({clips[0].name}): give one of them as the input")
    if tars:
        return TarSource(path, tars, columns)
    if clips:
        return ItemList(clips)
    if packed := [file for file in files if file.name.lower().endswith(COMPRESSED)]:
        raise DataError(f"{packed[0]} is a compressed tar, which has no random access: unpack it first")
    if files:
        state = "has neither captions.csv nor NAME/frames folders, nor videos with a NAME.txt, nor tars"
    else:
        state = "is empty"
    raise DataError(f"{path} {state}: put clips and a captions.csv (path,caption) there")


def table_of(path: Path) -> Path | None:
    """The table of an input: the file itself, or a folder's `captions` with an ending of a table; None without one.

    Raises:
        DataError: the folder holds several.
    """
    if path.is_file():
        return path if path.suffix.lower() in TABLE_ENDINGS else None
    if not path.is_dir():
        return None
    names = {f"captions{ending}" for ending in TABLE_ENDINGS}
    tables = sorted(file for file in path.iterdir() if file.name.lower() in names and file.is_file())
    if len(tables) > 1:
        found = " and ".join(table.name for table in tables)
        raise DataError(f"{path} holds {found}: give one of them as the input")
    return tables[0] if tables else None


def _tell_left_out(folder: Path) -> None:
    print(f"{folder} is left out: its {PLAN} says that it is the output of a build", file=sys.stderr, flush=True)
