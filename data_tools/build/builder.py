"""One build from beginning to end: its plan, its workers with their decoders, its merging."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from data_tools.build.merge import BuildSummary, is_merged, merge, summarise_tasks, unfinished
from data_tools.build.plan import Part, ShardTask, describe_build, split, tasks_of
from data_tools.build.prepare import Recipe, prepare
from data_tools.build.progress import Progress, Tally
from data_tools.build.sources import Columns, Source, discover
from data_tools.build.state import begin, locked, rejects_path
from data_tools.errors import BadVideo, DataError
from data_tools.processes.child import ChildDied, in_children
from data_tools.processes.decoder import CLIP_TIMEOUT, Decoder, check_timeout
from data_tools.shards import RawSample, write_shard
from data_tools.shards.rejected import read_rejected, write_rejected

TICK = 0.2  # seconds between two looks at how far the workers are


def build_shards(
    input: str | Path,
    output: str | Path,
    samples_per_shard: int = 1000,
    progress: bool = True,
    *,
    columns: Columns = Columns(),
    recipe: Recipe = Recipe(),
    val_share: float = 0.0,
    workers: int = 1,
    clip_timeout: float = CLIP_TIMEOUT,
    part: Part = Part(),
    overwrite: bool = False,
) -> BuildSummary:
    """Build a dataset at `output` from the clips at `input` (see `sources`), or go on with one that was stopped.

    The same input and options give the same bytes, for any number of workers and parts. The part that finishes last
    merges. With `val_share`, `output` holds two datasets, "train" and "val".

    Raises DataError for an input that cannot be used, an output that holds something else, and a build that rejects
    every clip.
    """
    output = Path(output)
    _check_numbers(samples_per_shard, val_share, workers, clip_timeout)
    recipe.check()
    if overwrite and part.count > 1:
        raise DataError("--overwrite would delete the shards of other parts: delete the folder before the first starts")
    source = discover(input, columns)
    if output.exists() and output.samefile(input):
        raise DataError(f"{output} is the input: choose another folder for the shards")
    datasets = split(source, val_share)
    settings = describe_build(input, source, datasets, columns, recipe, samples_per_shard, val_share)
    begin(output, settings, overwrite)
    if is_merged(output, settings):
        return merge(output)

    tasks = tasks_of(settings)
    ours = part.of(tasks)
    if ours:
        with locked(output, tasks.index(ours[0]), len(ours)):
            todo = unfinished(output, ours)
            packer = ShardPacker(output, source, datasets, todo, recipe, clip_timeout)
            _pack(packer, workers, _progress(output, ours, packer, progress))
    missing = unfinished(output, tasks)
    return summarise_tasks(output, ours, len(missing)) if missing else merge(output)


class ShardPacker:
    """Called in a worker with a place in `tasks`, packs that shard. What it does can be followed by `tallies`."""

    def __init__(
        self,
        output: Path,
        source: Source,
        datasets: dict[str, Sequence[int]],
        tasks: Sequence[ShardTask],
        recipe: Recipe,
        clip_timeout: float,
    ):
        self.tasks = tasks
        self.tallies = [Tally() for _ in tasks]
        self._output = output
        self._source = source
        self._datasets = datasets
        self._decoder = Decoder(lambda number: prepare(number, source[number], recipe), clip_timeout)

    def __call__(self, place: int) -> None:
        task = self.tasks[place]
        folder = self._output / task.dataset
        folder.mkdir(exist_ok=True)
        write_shard(folder, task.number, self._samples(task, self.tallies[place]))

    def _samples(self, task: ShardTask, tally: Tally) -> Iterator[RawSample]:
        """The shard's sound clips; the list of the others is on disk before the shard is closed."""
        rejects = []
        for clip in task.clips:
            number = int(self._datasets[task.dataset][clip])
            try:
                sample = self._decoder(number)
            except BadVideo as problem:
                name = self._source[number].name
                rejects.append({"path": name, "reason": problem.reason, "detail": problem.detail})
                tally.add(clips=1, rejected=1)
            else:
                yield sample
                tally.add(clips=1, bytes=len(sample.video))
        write_rejected(rejects_path(self._output, task), rejects)


def _pack(packer: ShardPacker, workers: int, bar: Progress) -> None:
    with closing(bar):
        try:
            for _ in in_children(packer, range(len(packer.tasks)), workers, TICK):
                bar.update()
        except KeyboardInterrupt:
            raise DataError("stopped: run the same command again to go on") from None
        except ChildDied as death:
            raise DataError(
                f"a worker is gone, perhaps for lack of memory ({death}): run the same command again to go on, "
                "with fewer --workers"
            ) from None


def _progress(output: Path, ours: Sequence[ShardTask], packer: ShardPacker, show: bool) -> Progress:
    finished = set(ours) - set(packer.tasks)
    return Progress(
        total=sum(len(task.clips) for task in ours),
        done=sum(len(task.clips) for task in finished),
        rejected=sum(len(read_rejected(rejects_path(output, task))) for task in finished),
        tallies=packer.tallies,
        show=show,
    )


def _check_numbers(samples_per_shard: int, val_share: float, workers: int, clip_timeout: float) -> None:
    for name, count in (("samples per shard", samples_per_shard), ("workers", workers)):
        if count < 1:
            raise DataError(f"{name} must be at least 1, not {count}")
    if not 0 <= val_share < 1:
        raise DataError(f"the val share must be at least 0 and below 1, not {val_share:g}")
    check_timeout(clip_timeout)
