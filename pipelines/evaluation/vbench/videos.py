"""Which videos VBench is shown, with the prompt and the seed of each."""

from pathlib import Path

from data_tools.draws import keyed_seed
from data_tools.errors import DataError
from pipelines.inference.generate import Wanted, video_paths
from pipelines.inference.shares import read_table

SAMPLES = 5  # videos of each of the suite's prompts; VBench reads so many
ENDING = ".mp4"


def wanted_videos(prompts: list[str], folder: Path, samples: int, layout: str, seed: int) -> list[Wanted]:
    """Returns the videos of all samples of all prompts. Each has its own seed, which follows from the run's.

    Args:
        prompts: The prompts.
        folder: Folder of the videos.
        samples: Samples per prompt.
        layout: Of the names, as in :func:`video_paths`.
        seed: The run's seed.
    """
    paths = video_paths(prompts, folder, samples, layout)
    return [
        Wanted(path, prompt, keyed_seed(seed, sample, f"vbench/{prompt}")) for path, (prompt, sample) in paths.items()
    ]


def given_videos(folder: Path, table: Path) -> list[Wanted]:
    """Returns the videos that a table with the columns ``path`` and ``prompt`` lists.

    Raises:
        DataError: The table cannot be read, or a video is missing or no mp4, which VBench would leave out.
    """
    rows = read_table(table, "prompt")
    if wrong := [row for row in rows if Path(row.get("path", "")).suffix != ENDING]:
        raise DataError(f"{table}: the path {wrong[0].get('path', '')!r} names no {ENDING}, which is what VBench reads")
    videos = [Wanted(folder / row["path"], row["prompt"]) for row in rows]
    require_there(videos, folder)
    return videos


def require_there(videos: list[Wanted], folder: Path) -> None:
    """Raises DataError if a video is missing."""
    if missing := [video.path.name for video in videos if not video.path.is_file()]:
        raise DataError(f"{folder} lacks {len(missing)} of {len(videos)} videos, the first is {missing[0]}")
