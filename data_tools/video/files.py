"""Videos read from a folder without a build and without captions: all of them, or those listed in a table."""

import hashlib
from functools import cached_property
from pathlib import Path

from data_tools.errors import BadVideo, DataError
from data_tools.order import RunOrder
from data_tools.rows import read_rows
from data_tools.shards.samples import VIDEO_ENDINGS, RawSample
from data_tools.video.decode import measured_duration

COLUMNS = ("videos", "path")  # "videos" is the column of the published VidTok's tables


def list_videos(folder: str | Path, table: str | Path | None = None) -> list[Path]:
    """Paths of videos below a folder, in order.

    Args:
        folder: the folder.
        table: a table with a column `videos` or `path` of paths relative to the folder. If omitted: all videos at any
            depth, sorted by name.

    Raises:
        DataError: there are no videos, or one is missing, or the table cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: give the folder that holds the videos")
    if table is None:
        found = sorted(path for path in folder.rglob("*") if path.suffix[1:].lower() in VIDEO_ENDINGS)
    else:
        column, rows = read_rows(Path(table), COLUMNS)
        found = [folder / str(row[column]) for row in rows if column in row]
    if not found:
        raise DataError(f"{table or folder} {'names' if table else 'holds'} no videos")
    if missing := [path for path in found if not path.is_file()]:
        raise DataError(f"{len(missing)} of {len(found)} videos are missing, the first is {missing[0]}")
    return found


class VideoFiles:
    """Random access to video files, with the interface of `ShardReader`. Captions are empty.

    Files are not validated in advance; a bad one raises BadVideo when it is read.
    """

    most_media = 1  # of a sample, as `ShardReader.most_media`

    def __init__(self, folder: str | Path, table: str | Path | None = None):
        self.folder, self.paths = Path(folder), list_videos(folder, table)

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def manifest_hash(self) -> str:
        """sha256 of the videos' names and sizes, in order."""
        lines = (f"{self.key(row)} {path.stat().st_size}" for row, path in enumerate(self.paths))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def order(self, seed: int) -> RunOrder:
        """The order of rows in a run with this seed."""
        return RunOrder(seed, [len(self)])

    def key(self, row: int) -> str:
        """The path relative to the folder."""
        return self.paths[row].relative_to(self.folder).as_posix()

    def source(self, row: int) -> int:
        """0: the number of the dataset that `row` is from (see `streaming.mixture`)."""
        return 0

    def read(self, row: int) -> RawSample:
        """The video at `row` with its duration.

        Raises:
            BadVideo: the file cannot be read.
        """
        path = self.paths[row]
        try:
            video = path.read_bytes()
        except OSError as error:
            raise BadVideo("unreadable", f"{path}: {error.strerror}") from error
        facts = {"duration": measured_duration(video)}
        return RawSample(self.key(row), video, path.suffix or ".video", {"caption": "", "facts": facts})
