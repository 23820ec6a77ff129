"""The figures of each part of the bench, and what each should be."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from data_tools.video.with_torchcodec import torchcodec_problem
from pipelines.benchmarks import (
    buckets,
    build,
    cached,
    checkpoint,
    compiled,
    data,
    fsdp,
    halves,
    host,
    prefill,
    profile,
    running,
    sample,
    scaling,
    step,
    tokeniser,
    vidtok,
)
from pipelines.benchmarks.figure import Figure
from pipelines.benchmarks.models import SMALL

# What is measured of buckets: a title, and what it should be at most.
BUCKET_TITLES = {
    "padding": ("padding, share of latent tokens", 0.03),
    "wasted": ("DiT FLOPs on padding, share", 0.03),
    "cropped": ("picture cropped away, mean share", None),
    "cut": ("latent frames cut off, share", None),
}
PREFILL_PICTURE = Path(__file__).with_name("prefill.png")


def data_figures(quick: bool = False) -> Iterator[Figure]:
    """Measure the data side; ``quick`` only shows that everything runs."""
    once = {"repeats": 1} if quick else {}
    few = {"clips": 1, **once} if quick else {}
    torch.set_num_threads(1)
    clip = data.moving_clip(1.0, 12, 90, 160) if quick else data.moving_clip()
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, str(number)) for number in range(5)]
        for folder in folders:
            folder.mkdir()
        samples = {"samples": 8, "size": 10_000} if quick else {}
        yield Figure("reading by index / webdataset, samples per CPU-s", data.reading(folders[0], **samples, **once), 3)
        one = data.loading(folders[1], clip, both_views=False, **few)
        yield Figure("loader / bare decoder, tokeniser view, clips per CPU-s", one, 0.95)
        both = data.loading(folders[2], clip, both_views=True, **few)
        yield Figure("loader / bare decoder, both views, clips per CPU-s", both, 0.95)
        far = data.resuming(folders[3], clip, **({"rows": 20_000, "position": 19_000} if quick else {}))
        yield Figure("opening an index of 5 M rows, s", far["open_s"], at_most=1, is_ratio=False)
        yield Figure("the index, once a node, MB", far["index_mb"], at_most=200, is_ratio=False)
        yield Figure("reader and order in a process, MB", far["own_mb"], at_most=20, is_ratio=False)
        yield Figure("first batch after resuming at 4.9 M, s", far["first_batch_s"], at_most=2, is_ratio=False)
        two = build.building(folders[4], clip, **({"clips": 4, "repeats": 1} if quick else {}))
        yield Figure("a build with two workers / two builds with one, clips per s", two, 0.9)
        yield Figure("validation / one full decode, CPU time", build.validating(clip, **few), at_most=1.5)
        if not torchcodec_problem():
            yield Figure("PyAV / torchcodec, CPU time", data.torchcodec(clip, **few))
        # The last, for decord's threads do not live through the forks of the loaders above.
        yield Figure("PyAV path / decord, CPU time", data.decoding(clip, **few), at_most=0.7)


def bucket_figures(quick: bool = False) -> Iterator[Figure]:
    """Compares one shape with buckets on a simulated manifest; ``quick`` takes a small one."""
    found = buckets.compared(*((4_000, 2_048) if quick else (1_000_000, 204_800)))
    for name, of_one, of_buckets in zip(buckets.Measured._fields, found.one, found.buckets):
        title, most = BUCKET_TITLES[name]
        yield Figure(f"{title}, one shape", of_one)
        yield Figure(f"{title}, {found.number} buckets", of_buckets, at_most=most)
    yield Figure("slowest / mean of 16 ranks, plain order, own lengths", found.plain)
    yield Figure("slowest / mean of 16 ranks, with buckets", found.arranged, at_most=1.1)
    yield Figure("FLOPs of a mean sample, buckets / one shape", found.cost, at_most=1)


def checkpoint_figures(quick: bool = False) -> Iterator[Figure]:
    """Measure the engine's saving; ``quick`` only shows that it runs."""
    with tempfile.TemporaryDirectory() as name:
        save = checkpoint.saving(Path(name), **({"parameters": 1, "repeats": 1} if quick else {}))
    yield Figure("share of a save that training waits for", save["stalled"], at_most=0.1)


def tokeniser_figures(quick: bool = False) -> Iterator[Figure]:
    """Measure the tokeniser; ``quick`` only shows that it runs."""
    torch.set_num_threads(1)
    ours = tokeniser.tokenising(**({"layers": 3, "image_size": 56, "repeats": 1} if quick else {}))
    yield Figure("frames to tokens / bare CLIP to its layer -2, frames/s", ours, at_least=0.95)


def step_figures(quick: bool = False) -> Iterator[Figure]:
    """Measure a training step; ``quick`` only shows that it runs."""
    torch.set_num_threads(1)
    options = {"size": SMALL, "clips": 2, "repeats": 1} if quick else {}
    with tempfile.TemporaryDirectory() as name:
        found = step.stepping(Path(name), **options)
        yield Figure("loss and backward / its modules alone, CPU time", found["modules"], at_most=1.05)
        yield Figure("tokens of the language model in that step", found["tokens"])
        yield Figure("passes of the language model in a step", found["passes"], at_most=1)
        yield Figure("share of its tokens that are padding", found["wasted"], at_most=0.02)
        yield Figure("packed rows / padded rows, CPU time", found["packed"], at_most=1)
        yield Figure("DiT without a mask of ones / with it, CPU time", found["unmasked"])
        sharded = step.under_deepspeed(Path(name), **options)
        yield Figure("step with ZeRO-3 on one rank / plain PyTorch, CPU time", sharded, at_most=1.15)
        stored = cached.from_stored(Path(name, "stored"), repeats=1 if quick else 5)
        yield Figure("step from video / from stored features and latents", stored, at_least=1)


def prefill_figures(quick: bool = False) -> Iterator[Figure]:
    """Measure reading videos of growing length, and draw it; ``quick`` only shows that it runs."""
    torch.set_num_threads(1)
    lengths = (1, 2) if quick else (5, 15, 30, 60, 120)
    with tempfile.TemporaryDirectory() as name:
        found = prefill.prefilling(Path(name), lengths, **({"size": SMALL} if quick else {}))
        if not quick:
            from pipelines.benchmarks.prefill_plot import plot_prefill  # matplotlib is not everybody's

            plot_prefill(found, PREFILL_PICTURE)
    for seconds, one in found.items():
        for quantity, label in (("tokens", "tokens"), ("seconds", "CPU time"), ("cache", "keys and values")):
            ours, theirs = (getattr(one[strategy], quantity) for strategy in prefill.STRATEGIES)
            yield Figure(f"{seconds} s of video, vtok / frames: {label}", ours / theirs)
    last = found[lengths[-1]]["vtok"]
    yield Figure(f"visual tokens a frame, {lengths[-1]} s", last.visual_tokens / last.frames, at_most=1.05)


def sample_figures(quick: bool = False) -> Iterator[Figure]:
    """Measure the sampling of visual tokens; ``quick`` only shows that it runs."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        ours = sample.sampling(Path(name), **({"size": SMALL, "motion_tokens": 2, "repeats": 1} if quick else {}))
    yield Figure("visual tokens / bare cached decoding, CPU time", ours, at_most=1.1)


def vidtok_figures(quick: bool = False) -> Iterator[Figure]:
    """Measure VidTok's encoder and decoder; ``quick`` only shows that it runs."""
    torch.set_num_threads(1)
    options = {"ch": 8, "frames": 5, "size": 16, "repeats": 1} if quick else {}
    for version in ("", "_v1_1"):
        speed = vidtok.against_plain(f"vidtok_kl_causal_488_4chn{version}", **options)
        name = f"VidTok {'1.1' if version else '1.0'}, plain"
        for part in ("encode", "decode"):
            yield Figure(f"{name} / ours, {part}, CPU time", getattr(speed, part), at_least=1.75)
            yield Figure(f"{name} / our convolutions alone, {part}", getattr(speed, f"{part}_limit"))


def run_figures(quick: bool = False) -> Iterator[Figure]:
    """Measure whole runs; ``quick`` only shows that they run. Needs both cores to itself."""
    repeats = 1 if quick else 5
    yield Figure("import vtok / import torch, transformers", running.importing("vtok", repeats), at_most=1.5)
    yield Figure("import vtok.framework / the same", running.importing("vtok.framework", repeats))
    with tempfile.TemporaryDirectory() as name:
        found = running.training(Path(name), **({"clips": 8, "steps": 3} if quick else {}))
        yield Figure("first step of the tiny preset, s", found["first_step"], is_ratio=False)
        yield Figure("share of a step that waits for data", found["waited"], at_most=0.02)
        options = {"size": SMALL, "clips": 1, "steps": 1, "repeats": 1} if quick else {}
        two = scaling.efficiency(Path(name), **options)
        yield Figure("two ranks / two runs of one rank, samples per s", two, at_least=0.9)


def fsdp_figures(quick: bool = False) -> Iterator[Figure]:
    """Compares a step of two ranks with torch's own way to shard; ``quick`` only shows that it runs."""
    options = {"size": SMALL, "clips": 1, "steps": 1} if quick else {}
    with tempfile.TemporaryDirectory() as name:
        found = fsdp.compared(Path(name), **options)
    ours, theirs = found["zero3"], found["fsdp2"]
    for field, title, most in (
        ("seconds", "seconds of a step", 1.1), ("cpu", "CPU seconds of a step", None),
        ("received", "bytes received in a step", 1.1), ("collectives", "collectives of a step", None),
        ("alone", "seconds of these collectives alone", None),
        ("peak", "peak of a step's tensors, bytes", 1.1), ("held", "bytes held between steps", None),
    ):  # fmt: skip
        yield Figure(f"ZeRO-3 / FSDP2, {title}", getattr(ours, field) / getattr(theirs, field), at_most=most)
        yield Figure(f"FSDP2, {title}", getattr(theirs, field), is_ratio=False)
    memory = [cost.peak + cost.held for cost in (ours, theirs)]
    yield Figure("ZeRO-3 / FSDP2, memory", memory[0] / memory[1], at_most=1.1)
    yield Figure("difference of the losses", abs(ours.loss - theirs.loss), at_most=1e-3, is_ratio=False)


def host_figures(quick: bool = False) -> Iterator[Figure]:
    """Measure what ZeRO-3's hooks cost the host; ``quick`` only shows that it runs."""
    torch.set_num_threads(1)
    found = host.host_work(**({"depth": (2, 1, 1), "repeats": 1} if quick else {}))
    for way, (language, both) in found.items():
        yield Figure(f"{way}: language model, CPU s", language, is_ratio=False)
        bound = 1.0 if way == host.WHOLE else None
        yield Figure(f"{way}: with the decoder, CPU s", both, at_most=bound, is_ratio=False)
    hooks = [found[way][1] - found[host.PLAIN][1] for way in (host.WHOLE, host.ZERO)]
    yield Figure("hooks: blocks gathered whole / layer by layer", hooks[0] / hooks[1], at_most=0.5)


def profile_figures(quick: bool = False) -> Iterator[Figure]:
    """Where a step's CPU time goes; ``quick`` only shows that it runs."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        shares = profile.shares_of_a_step(Path(name), **({"size": SMALL} if quick else {}))
    yield Figure("matrix products", sum(share for operator, share in shares.items() if profile.is_product(operator)))
    for operator in [operator for operator in shares if not profile.is_product(operator)][:6]:
        yield Figure(operator, shares[operator])


def compile_figures(quick: bool = False) -> Iterator[Figure]:
    """Measure what torch.compile would gain; minutes of compilation."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        for part, value in compiled.compiling(Path(name), **({"size": SMALL, "repeats": 1} if quick else {})).items():
            yield Figure(f"{part}: compiled blocks / as they are, CPU time", value)


def halves_figures(quick: bool = False) -> Iterator[Figure]:
    """What training on new data gains and forgets; ``quick`` only shows that it runs."""
    with tempfile.TemporaryDirectory() as name:
        found = halves.gained_and_forgotten(Path(name), halves.QUICK if quick else halves.Size())
    for model, shares in found.items():
        for half, share in shares.items():
            yield Figure(f"trained on clips {model}: right captions of clips {half}", share, is_ratio=False)


# Part of the bench -> what measures it.
FIGURES = {
    "data": data_figures,
    "buckets": bucket_figures,
    "checkpoint": checkpoint_figures,
    "tokeniser": tokeniser_figures,
    "step": step_figures,
    "prefill": prefill_figures,
    "sample": sample_figures,
    "vidtok": vidtok_figures,
    "run": run_figures,
    "profile": profile_figures,
    "compile": compile_figures,
    "fsdp": fsdp_figures,
    "host": host_figures,
    "halves": halves_figures,
}
