"""Video files of a folder, all of them or those that a table names, without captions and without a build."""

import csv
import hashlib
from functools import cached_property
from pathlib import Path

from data_tools.errors import BadVideo, DataError
from data_tools.shards.samples import VIDEO_ENDINGS, RawSample
from data_tools.streaming.order import RunOrder
from data_tools.video import measured_duration

COLUMNS = ("videos", "path")  # the first is what the published VidTok's tables have


def list_videos(folder: str | Path, table: str | Path | None = None) -> list[Path]:
    """Paths of videos below a folder, in order.

    Args:
        table: a .csv with a column ``videos`` (or ``path``) of paths relative to the folder; all videos in any depth
            below it, by name, if omitted.

    Raises:
        DataError: there are none, or one is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: give the folder that holds the videos")
    if table is None:
        found = sorted(path for path in folder.rglob("*") if path.suffix[1:].lower() in VIDEO_ENDINGS)
    else:
        found = [folder / name for name in named_videos(Path(table))]
    if not found:
        raise DataError(f"{table or folder} {'names' if table else 'holds'} no videos")
    if missing := [path for path in found if not path.is_file()]:
        raise DataError(f"{len(missing)} of {len(found)} videos are missing, the first is {missing[0]}")
    return found


def named_videos(table: Path) -> list[str]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            column = next((name for name in COLUMNS if name in (rows.fieldnames or ())), None)
            if column is None:
                raise DataError(f"{table} has no column {' or '.join(COLUMNS)}: name the videos in one")
            return [row[column] for row in rows if row[column]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the table {table}: {getattr(error, 'strerror', None) or error}") from error


class VideoFiles:
    """Random access to listed videos, as a `ShardReader` gives it to those of shards. Captions are empty.

    Files are not validated before: what turns out bad when it is read is a BadVideo.
    """

    def __init__(self, folder: str | Path, table: str | Path | None = None):
        self.folder, self.paths = Path(folder), list_videos(folder, table)

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def manifest_hash(self) -> str:
        """Names the state of the data: the videos' names and sizes, in order."""
        lines = (f"{self.key(row)} {path.stat().st_size}" for row, path in enumerate(self.paths))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def order(self, seed: int) -> RunOrder:
        return RunOrder(seed, [len(self)])

    def key(self, row: int) -> str:
        return self.paths[row].relative_to(self.folder).as_posix()

    def read(self, row: int) -> RawSample:
        path = self.paths[row]
        try:
            video = path.read_bytes()
        except OSError as error:
            raise BadVideo("unreadable", f"{path}: {error.strerror}") from error
        facts = {"duration": measured_duration(video)}
        return RawSample(self.key(row), video, path.suffix, {"caption": "", "facts": facts})
