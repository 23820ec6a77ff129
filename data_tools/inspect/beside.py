"""What lies beside the indexed tars of a folder and could hold clips: the index does not read it, so it is named."""

from collections.abc import Iterable
from pathlib import Path

from data_tools.packing.sources import COMPRESSED
from data_tools.rows import TABLE_ENDINGS
from data_tools.shards.samples import IMAGE_ENDINGS, VIDEO_ENDINGS

NAMED = 3  # files that a sentence lists; the others are counted
KINDS = (  # (what the files are, their endings, what to do)
    ("other tars", (".tar",), "give the index their folder, or pack all tars anew with build"),
    ("compressed archives", (*COMPRESSED, ".zip"), "unpack them first"),
    ("videos", tuple(f".{ending}" for ending in VIDEO_ENDINGS), "pack them with build"),
    ("images", tuple(f".{ending}" for ending in sorted(IMAGE_ENDINGS)), "pack them with build"),
    (
        "tables",
        tuple(ending for ending in TABLE_ENDINGS if ending != ".json"),
        "pack the videos that they name with build",
    ),
)


def beside(folder: Path, files: Iterable[Path]) -> list[str]:
    """A sentence for each kind of file that the index leaves out.

    Args:
        folder: the indexed folder.
        files: all files below it, without the indexed tars and the list of rejected clips.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in files)
    sentences = []
    for kind, endings, advice in KINDS:
        found = [name for name in names if name.lower().endswith(endings)]
        if found:
            more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
            sentences.append(f"{kind} are not indexed: {', '.join(found[:NAMED])}{more}: {advice}")
    return sentences
