"""One build from start to end: plan, pack with workers and their decoders, merge."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from data_tools.errors import BadVideo, DataError
from data_tools.packing.beginning import begin
from data_tools.packing.merge import BuildSummary, is_merged, merge, reopen_damaged, summarise_tasks, unfinished
from data_tools.packing.plan import Numbers, Part, ShardTask, describe_build, split, tasks_of
from data_tools.packing.prepare import Recipe, prepare
from data_tools.packing.progress import Progress, Tally
from data_tools.packing.sources import Columns, Source, discover
from data_tools.packing.state import locked, rejects_path
from data_tools.processes.child import ChildDied, in_children
from data_tools.processes.decoder import CLIP_TIMEOUT, Decoder, check_timeout
from data_tools.shards import RawSample, write_shard
from data_tools.shards.rejected import read_rejected, write_rejected

TICK = 0.2  # seconds between updates of the progress bar


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
    """Build a dataset, or resume a build that was stopped.

    The same input and options give the same bytes, for any number of workers and parts.

    Args:
        input: the clips (see `sources`).
        output: folder of the dataset.
        samples_per_shard: clips per shard, rejected ones included.
        progress: show a progress bar.
        columns: names of the input's fields.
        recipe: how clips are processed and filtered.
        val_share: share of clips held out. If above 0, `output` holds the datasets "train" and "val".
        workers: number of processes.
        clip_timeout: seconds for one clip.
        part: which shards to pack, for array jobs. The part that finishes last merges.
        overwrite: delete an existing build first.

    Returns:
        What the build holds.

    Raises:
        DataError: the input or an option cannot be used, `output` holds something else, or every clip is rejected.
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
    begin(input, source, output, settings, overwrite)
    if is_merged(output, settings):
        return merge(output)

    tasks = tasks_of(settings)
    reopen_damaged(output, settings, tasks)
    ours = part.of(tasks)
    if ours:
        with locked(output, tasks.index(ours[0]), len(ours)):
            todo = unfinished(output, ours)
            packer = ShardPacker(output, source, datasets, todo, recipe, clip_timeout)
            _pack(packer, workers, _progress(output, ours, packer, progress))
    missing = unfinished(output, tasks)
    return summarise_tasks(output, ours, len(missing)) if missing else merge(output)


class ShardPacker:
    """Packs the shard at an index of `tasks`, in a worker.

    Args:
        output: folder of the build.
        source: the input.
        datasets: numbers of the clips of each dataset (see `plan.split`).
        tasks: the shards to pack.
        recipe: how clips are processed and filtered.
        clip_timeout: seconds for one clip.

    Attributes:
        tallies: progress of each task, in shared memory.
    """

    def __init__(
        self,
        output: Path,
        source: Source,
        datasets: dict[str, Numbers],
        tasks: Sequence[ShardTask],
        recipe: Recipe,
        clip_timeout: float,
    ):
        self.tasks = tasks
        self.tallies = [Tally() for _ in tasks]
        self._output = output
        self._source = source
        self._datasets = datasets
        self._decoder: Decoder[int, RawSample] = Decoder(
            lambda number: prepare(number, source[number], recipe), clip_timeout
        )

    def __call__(self, index: int) -> None:
        """Pack the shard of `tasks[index]`."""
        task = self.tasks[index]
        folder = self._output / task.dataset
        folder.mkdir(exist_ok=True)
        write_shard(folder, task.number, self._samples(task, self.tallies[index]))

    def _samples(self, task: ShardTask, tally: Tally) -> Iterator[RawSample]:
        """Yield the shard's usable clips, then write the list of rejected ones, before the shard is finished."""
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
                tally.add(clips=1, bytes=sum(map(len, (sample.video, *sample.others))))
        write_rejected(rejects_path(self._output, task), rejects)


def _pack(packer: ShardPacker, workers: int, bar: Progress) -> None:
    """Pack all tasks in up to `workers` processes. Raises DataError if it is interrupted or a worker dies."""
    with closing(bar):
        try:
            for _ in in_children(packer, range(len(packer.tasks)), workers, TICK):
                bar.update()
        except KeyboardInterrupt:
            raise DataError("stopped: run the same command again to resume") from None
        except ChildDied as death:
            raise DataError(
                f"a worker died, perhaps for lack of memory ({death}): run the same command again with fewer "
                "--workers to resume"
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
