"""What goes into a build: captioned clips, in one of these layouts.

tables.py   a table (captions.csv, .jsonl, .json, .parquet) that names videos, one row or several for each clip
files.py    videos with a .txt or .json of the same name beside them, in any depth of folders
frames.py   folders NAME/frames/frame_0000.jpg … with NAME/caption.txt
tars.py     WebDataset tars, to be packed anew

clip.py     what all of them give: a list of items, each of which loads one clip
rows.py     the rows of the four kinds of table, by place
texts.py    captions, questions and conversations, from whatever fields the input has

`discover` lists the clips without opening them; an input that cannot be right as a whole raises DataError. What is
wrong with a single clip comes out when it is loaded, as a BadVideo with its reason.
"""

from pathlib import Path

from data_tools.build.sources.clip import Clip, Columns, Item, Source
from data_tools.build.sources.files import find_videos
from data_tools.build.sources.frames import find_frame_folders
from data_tools.build.sources.rows import TABLE_ENDINGS
from data_tools.build.sources.tables import TableSource
from data_tools.build.sources.tars import TarSource
from data_tools.errors import DataError

__all__ = ["Clip", "Columns", "Item", "Source", "discover"]


def discover(input: str | Path, columns: Columns = Columns()) -> Source:
    """The clips of a folder, of a table file or of a tar, in an order that depends on the input alone."""
    path = Path(input)
    if path.is_file():
        if path.suffix.lower() in TABLE_ENDINGS:
            return TableSource(path, columns)
        if path.suffix.lower() == ".tar":
            return TarSource([path], columns)
        raise DataError(f"{path} is neither a table ({', '.join(TABLE_ENDINGS)}) nor a tar: give one, or a folder")
    if not path.is_dir():
        raise DataError(f"{path} is not a folder: give the folder that holds the clips")
    tables = [table for ending in TABLE_ENDINGS if (table := path / f"captions{ending}").is_file()]
    if len(tables) > 1:
        names = " and ".join(table.name for table in tables)
        raise DataError(f"{path} holds {names}: give the one that counts as the input")
    if tables:
        return TableSource(tables[0], columns)
    if tars := sorted(path.glob("*.tar")):
        return TarSource(tars, columns)
    if (found := find_frame_folders(path, columns)) or (found := find_videos(path, columns)):
        return found
    if any(path.iterdir()):
        state = "has neither captions.csv nor NAME/frames folders, nor videos with a NAME.txt, nor tars"
    else:
        state = "is empty"
    raise DataError(f"{path} {state}: put clips and a captions.csv (path,caption) there")
