"""Videos with texts beside them: `NAME.mp4` with `NAME.txt` (the caption), `NAME.json`, or both.

Folders may be nested. A file is a video if it has a video ending. The .txt overrides the caption of the .json.
"""

from dataclasses import dataclass
from pathlib import Path

from data_tools.packing.sources.clip import Clip, ItemList, member_ending, read_fields, read_text, read_video
from data_tools.shards.samples import VIDEO_ENDINGS
from data_tools.texts import Columns, describe, filled


@dataclass(frozen=True)
class VideoItem:
    """A video and the texts with the same name.

    Attributes:
        folder: the input.
        name: path of the video, relative to `folder`.
        columns: names of the fields of the .json.
    """

    folder: Path
    name: str
    columns: Columns

    @property
    def path(self) -> Path:
        """The path of the video."""
        return self.folder / self.name

    @property
    def origin(self) -> str:
        """See `Item`."""
        if not self.columns.source:
            return self.name
        return str(read_fields(self.path.with_suffix(".json")).get(self.columns.source, self.name))

    def load(self) -> Clip:
        """See `Item`."""
        beside = filled({self.columns.caption: read_text(self.path.with_suffix(".txt"))})
        meta = describe(self.name, [read_fields(self.path.with_suffix(".json")) | beside], self.columns)
        return Clip(read_video(self.path), member_ending(self.name), meta)


def find_videos(folder: Path, columns: Columns) -> ItemList | None:
    """The videos below `folder`, sorted by name; None if none of them has a text beside it."""
    files = {path for path in folder.rglob("*") if path.is_file()}
    videos = sorted(path.relative_to(folder).as_posix() for path in files if path.suffix[1:].lower() in VIDEO_ENDINGS)
    texts = [path for path in files if path.suffix in (".txt", ".json")]
    stems = {path.with_suffix("") for path in texts}
    if not any((folder / name).with_suffix("") in stems for name in videos):
        return None
    return ItemList(VideoItem(folder, name, columns) for name in videos)
