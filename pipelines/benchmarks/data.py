"""What the data side costs, measured: ratios within one run and of CPU time, so that they hold on a busy machine too.

Each comparison is made several times, its two sides in turn, and the median of the ratios is given. Callers set torch
to one thread, as a loader's worker has it: more would wait for one another over frames as small as these.
"""

import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
import webdataset
from torch.nn.functional import interpolate

from data_tools.dataset import ClipDataset, Sample
from data_tools.order import RunOrder, RunSampler
from data_tools.shards import RawSample, ShardReader, shard_name, write_manifest, write_shard
from data_tools.streaming.memory import stacked
from data_tools.video.decode import validate
from data_tools.video.views import View, decoder_view, make_views, tokeniser_view
from pipelines.benchmarks.paired import cpu_seconds, ratio
from pipelines.engine.loading.workers import read_ahead

WARM_UP = 2  # batches of a loader that are not counted: processes start


def moving_clip(seconds: float = 5.0, fps: int = 24, height: int = 720, width: int = 1280) -> bytes:
    """An mp4 like those of the web: x264's defaults with a key frame every 2 s, at 2 Mbit/s for 720p.

    A textured plane drifts past, under a sensor's noise. Without noise every frame would be the last one, moved, and a
    decoder would have nothing to do.
    """
    frames = round(seconds * fps)
    draws = np.random.default_rng(0)
    coarse = torch.from_numpy(draws.integers(64, 192, (1, 3, height // 8, width // 8), dtype=np.uint8))
    size = (height + frames, width + 2 * frames)
    plane = interpolate(coarse, size, mode="bicubic", antialias=True)[0].permute(1, 2, 0).numpy()
    noise = draws.integers(-6, 7, (height + 64, width + 64, 1)).astype(np.int16)

    def picture(number: int) -> np.ndarray:
        y, x = draws.integers(0, 64, 2)
        clean = plane[number : number + height, 2 * number : 2 * number + width]
        return np.clip(clean + noise[y : y + height, x : x + width], 0, 255).astype(np.uint8)

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "23", "g": str(2 * fps)})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def reading(folder: Path, samples: int = 200, size: int = 500_000, repeats: int = 7) -> float:
    """Samples per CPU-second read by index, in a run's order, over those of webdataset reading the same shards."""
    clip = os.urandom(size)
    per_shard = samples // 4
    for shard in range(4):
        numbers = range(shard * per_shard, (shard + 1) * per_shard)
        write_shard(folder, shard, [_sample(number, clip, {"frames": 120, "duration": 5.0}) for number in numbers])
    write_manifest(folder)
    reader = ShardReader(folder)
    order = RunOrder(0, reader.shard_sizes)
    tars = [str(path) for path in sorted(folder.glob("*.tar"))]

    def by_index() -> None:
        for position in range(len(reader)):
            reader.read(order.row(position))

    def streamed() -> None:
        for _ in webdataset.WebDataset(tars, shardshuffle=False):
            pass

    return ratio(cpu_seconds(streamed), cpu_seconds(by_index), repeats)


def loading(folder: Path, clip: bytes, both_views: bool, clips: int = 10, repeats: int = 5) -> float:
    """Clips per CPU-second through a loader process over those of the bare decoder and resize.

    The loader's cost is its worker's and the trainer's together, per clip, once it is running.
    """
    facts = validate(clip).to_dict()
    write_shard(folder, 0, [_sample(number, clip, facts) for number in range(4)])
    write_manifest(folder)
    small, large = _views(facts["duration"], both_views)
    dataset = ClipDataset(
        ShardReader(folder), seed=0, seconds=facts["duration"], tokeniser_view=small, decoder_view=large
    )

    def bare() -> float:
        make_views(clip, facts["duration"], small, large, 0.0, entry=facts["entry"])
        started = time.process_time()
        for _ in range(clips):
            make_views(clip, facts["duration"], small, large, 0.0, entry=facts["entry"])
        return (time.process_time() - started) / clips

    def loader() -> float:
        sampler = RunSampler(1, 1, 0, 1, end=WARM_UP + clips)
        batches = read_ahead(dataset, sampler, 1, _timed)
        marks = [worker + time.process_time() for _, _, worker in batches]
        return (marks[-1] - marks[WARM_UP - 1]) / clips

    return ratio(bare, loader, repeats)


def decoding(clip: bytes, clips: int = 4, repeats: int = 7) -> float:
    """CPU time of the PyAV path for the tokeniser's view over decord's, at its own threads and with its own resize."""
    import decord

    facts = validate(clip)
    duration = facts.duration
    view, _ = _views(duration, both_views=False)

    def ours() -> None:
        for _ in range(clips):
            make_views(clip, duration, view, None, 0.0, entry=facts.entry)

    def theirs() -> None:
        for _ in range(clips):
            reader = decord.VideoReader(io.BytesIO(clip), width=view.width, height=view.height)
            step = len(reader) / duration / view.fps
            frames = [min(round(index * step), len(reader) - 1) for index in range(view.num_frames)]
            reader.get_batch(frames).asnumpy()

    return ratio(cpu_seconds(ours), cpu_seconds(theirs), repeats)


def torchcodec(clip: bytes, clips: int = 4, repeats: int = 7) -> float:
    """CPU time of the tokeniser's view of a clip by PyAV over that by torchcodec; their pixels are the same."""
    facts = validate(clip)
    view, _ = _views(facts.duration, both_views=False)

    def by(backend: str) -> Callable[[], None]:
        def work() -> None:
            for _ in range(clips):
                make_views(clip, facts.duration, view, None, 0.0, backend=backend, entry=facts.entry)

        return work

    return ratio(cpu_seconds(by("pyav")), cpu_seconds(by("torchcodec")), repeats)


def resuming(folder: Path, clip: bytes, rows: int = 5_000_000, position: int = 4_900_000) -> dict[str, float]:
    """A run that resumes far into a large index.

    open_s: seconds to open the index. index_mb: of the shared mapping, once a node. first_batch_s: seconds to open it
    and have the first batch of two. own_mb: memory that the reader and the order take in a process of their own.
    """
    write_large_index(folder, clip, rows)
    before, started = _own_memory(), time.perf_counter()
    reader = ShardReader(folder)
    opened = time.perf_counter() - started
    order = reader.order(0)
    for place in range(position, position + 20_000):
        order.row(place)
    own = _own_memory() - before

    view = View(6, 7, 336, 336)
    started = time.perf_counter()
    dataset = ClipDataset(ShardReader(folder), seed=0, seconds=1.0, tokeniser_view=view)
    sampler = RunSampler(2, 2, 0, 1, consumed_samples=position)
    next(read_ahead(dataset, sampler, 2, _timed))
    first = time.perf_counter() - started
    return {"open_s": opened, "index_mb": reader.rows.nbytes / 1e6, "first_batch_s": first, "own_mb": own / 1e6}


def write_large_index(folder: Path, clip: bytes, rows: int, per_shard: int = 1000) -> None:
    """A dataset of `rows` samples in shards of `per_shard`, all of which are three files of four samples in truth."""
    facts = validate(clip).to_dict()
    for shard in range(3):
        write_shard(folder, shard, [_sample(4 * shard + number, clip, facts) for number in range(4)])
    manifest = write_manifest(folder)
    real = np.load(folder / "manifest.npy")
    row = np.arange(rows)
    large = real[row // per_shard % 3 * 4 + row % 4]
    large["shard"] = row // per_shard
    np.save(folder / "manifest.npy", large)
    shards = [
        {**manifest["shards"][0], "name": shard_name(number % 3), "samples": min(per_shard, rows - number * per_shard)}
        for number in range(-(-rows // per_shard))
    ]
    (folder / "manifest.json").write_text(json.dumps({**manifest, "samples": rows, "shards": shards}))


def _sample(number: int, clip: bytes, facts: dict) -> RawSample:
    return RawSample(f"{number:09d}", clip, ".mp4", {"caption": "It drifts.", "path": "clip.mp4", "facts": facts})


def _views(seconds: float, both_views: bool) -> tuple[View, View | None]:
    """The views of the paper's run."""
    return tokeniser_view(seconds, 6, 336, 336), decoder_view(seconds, 24, 320, 576) if both_views else None


def _timed(samples: list[Sample]) -> tuple[torch.Tensor, torch.Tensor | None, float]:
    """Collate; with the CPU seconds of the process that did it."""
    frames = stacked([sample.frames for sample in samples])
    video = None if samples[0].video is None else stacked([sample.video for sample in samples])
    return frames, video, time.process_time()


def _own_memory() -> int:
    """Bytes of memory that this process shares with no file or other process."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))
