"""Tiny configurations and batches for tests."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipelines.config import DataConfig, RunConfig, TrainConfig
from pipelines.engine.loading.loader import padded
from pipelines.metering.workload import Workload
from vtok.config import DecoderConfig, LossConfig, MLLMConfig, ModelConfig, VisualHeadConfig, VTokConfig
from vtok.framework import VTokFramework
from vtok.generation import decoder_conditioning, sample_row
from vtok.rows.batch import Batch
from vtok.rows.text import Place, RowText, mark

CAPTIONS = [
    "A small red circle moves to the right.",
    "Blue.",
    "The video shows a large green square that moves up and then stays where it is for the rest of the clip.",
    "A yellow triangle goes round in a circle.",
]
# Further turns of a conversation.
TALK = (("And what is 2 + 2?", "Four."), ("Sure?", "Yes."))


def model_config(folder: Path, **changes) -> ModelConfig:
    """The tiny models in ``folder``; keywords replace whole sections."""
    config = ModelConfig(
        tokeniser=VTokConfig(weights=f"{folder}/clip", token_dim=64, fps=4, motion_tokens_per_second=4),
        mllm=MLLMConfig(weights=f"{folder}/llava", max_motion_tokens=32),
        decoder=DecoderConfig(weights=f"{folder}/hunyuan", fps=8, height=32, width=32, max_prompt_tokens=64),
    )
    return replace(config, **changes)


def fp8_config(folder: Path, form: str = "weights", base: Callable[..., ModelConfig] = model_config) -> ModelConfig:
    """The tiny models with fp8 weights in the decoder's transformer."""
    config = base(folder)
    return replace(config, decoder=replace(config.decoder, fp8=form))


def with_strategy(config: ModelConfig, folder: Path, **tokeniser) -> ModelConfig:
    """Another strategy, by settings of the tokeniser. Those with a codec get the tiny one."""
    if tokeniser.get("strategy") == "omnitokenizer":
        own = dict(backbone="omnitokenizer", weights=f"{folder}/omnitokenizer", fps=6, motion_tokens_per_second=None)
        tokeniser = own | tokeniser
    if tokeniser.get("strategy") == "video-lavit":
        own = dict(codec=f"{folder}/motion_codec", fps=6, motion_tokens_per_second=None)
        config = replace(config, visual_head=VisualHeadConfig(kind="codes"))
        tokeniser = own | tokeniser
    return replace(config, tokeniser=replace(config.tokeniser, **tokeniser))


def wan_config(folder: Path, weights: str = "wan", **settings) -> ModelConfig:
    """The same with a Wan as the decoder, ``wan`` or ``wan_experts``; keywords are further settings of the decoder."""
    config = model_config(folder)
    wan = dict(kind="wan", weights=f"{folder}/{weights}", adapter_dim=48)
    return replace(config, decoder=replace(config.decoder, **wan | settings))


def qwen_config(folder: Path, **tokeniser) -> ModelConfig:
    """The tiny Qwen2.5-VL in ``folder``, on 4 x 4 tokens and one of every two frames; keywords set the tokeniser."""
    own = dict(backbone="qwen2.5-vl", weights=f"{folder}/qwen", token_dim=64, fps=4, motion_stride=2)
    return ModelConfig(
        tokeniser=VTokConfig(**own | tokeniser),
        mllm=MLLMConfig("qwen2.5-vl", f"{folder}/qwen", max_motion_tokens=32),
        loss=LossConfig(vis_lm=0, dec=0),
    )


def planned_config(folder: Path, checkpointing: bool = False, parts: dict[str, float] | None = None) -> RunConfig:
    """A run of the tiny models in fp32, for plans: 4 samples a step, at most 2 on a rank at once."""
    model = model_config(folder)
    model.mllm.gradient_checkpointing = model.decoder.gradient_checkpointing = checkpointing
    train = TrainConfig(max_steps=10, global_batch_size=4, micro_batch_size=2, precision="fp32", parts=parts)
    return RunConfig(train, model=model, data=DataConfig(seconds=2.0))


def planned_batch(load: Workload) -> Batch:
    """A real batch of a workload: random pixels, its very rows."""
    return load.batch(partial(torch.randint, 0, 256))


def make_batch(
    framework: VTokFramework, count: int = 4, captions: list | None = None, frame_counts=None, size: int = 64
) -> Batch:
    """A batch of random clips, ``size`` pixels wide, with captions of unequal length and clips of unequal length."""
    captions = CAPTIONS[:count] if captions is None else captions
    generator = torch.Generator().manual_seed(1)
    frame_counts = frame_counts or [9, 4, 1, 7][:count]
    frames = torch.randint(0, 256, (count, 9, 3, size, size), dtype=torch.uint8, generator=generator)
    for clip, real in enumerate(frame_counts):
        frames[clip, real:] = frames[clip, real - 1]
    texts = [framework.text.sample(caption, None, None, index) for index, caption in enumerate(captions)]
    vectors_of, vectors = framework.tokeniser.vectors_of, None
    if vectors_of is not None:
        vectors = padded([vectors_of(clip[:real]) for clip, real in zip(frames, frame_counts)])
    video = None
    if framework.decoder is not None:
        video = torch.randint(0, 256, (count, 9, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return Batch(
        frames=frames,
        frame_counts=frame_counts,
        video=video,
        video_counts=[9, 5, 1, 9][:count],
        texts=texts,
        decoder_seeds=[100 + i for i in range(count)],
        head_seeds=[200 + i for i in range(count)],
        keys=[f"clip{i}" for i in range(count)],
        vectors=vectors,
    )


def mixed_batch(framework, kinds="vitq"):
    """A micro-batch of a captioned video (v), image (i), text alone (t), and a question about a video (q).

    Further kinds: a conversation about a video and two images (s), one whose first turn shows nothing (l), a captioned
    video that counts in L_dec alone (d), and one that does not count in it (p).
    """
    whole = make_batch(framework, len(kinds), captions=CAPTIONS[: len(kinds)])
    say = framework.text.sample
    compared = "What is in the two? Say it.", "A ball."
    texts = {
        "v": lambda n: say(CAPTIONS[n], None, None, n),
        "i": lambda n: say(CAPTIONS[n], None, None, n, kind="image"),
        "t": lambda n: say("", "What is 1 + 1?", "Two.", n, TALK, "text"),
        "q": lambda n: say("", "What moves?", "A ball.", n, TALK[:1]),
        "s": lambda n: say("", *compared, n, TALK, "several", [Place(0, 0), Place(0, 19), Place(1, 3)]),
        "d": lambda n: framework.text.counted(say(CAPTIONS[n], None, None, n), ["dec"]),
        "p": lambda n: framework.text.counted(say(CAPTIONS[n], None, None, n), ["under", "vis_lm"]),
        "l": lambda n: say("", "Hello?", "Yes?", n, TALK, "several", [Place(2, 0), Place(2, 5)]),
    }
    generator = torch.Generator().manual_seed(2)
    frames, counts, videos, lengths = [], [], [], []
    for n, kind in enumerate(kinds):
        count = whole.frame_counts[n]
        own = {"v": [count], "q": [count], "d": [count], "p": [count], "s": [count, 1, 1], "l": [1, 5]}.get(kind, [1])
        for place, real in enumerate(own):
            noise = torch.randint(0, 256, whole.frames[n].shape, dtype=torch.uint8, generator=generator)
            pixels = (noise if place else whole.frames[n].clone()) * (kind != "t")
            pixels[real:] = pixels[real - 1]
            frames.append(pixels)
        counts.append(own)
        shape = {"v": (9, 3, 32, 32), "d": (9, 3, 32, 32), "i": (1, 3, 48, 32)}.get(kind, (1, 3, 32, 32))
        lengths.append(shape[0])
        drawn = torch.Generator().manual_seed(n)
        pixels = torch.randint(0, 256, (1, *shape), dtype=torch.uint8, generator=drawn)
        videos.append(pixels if kind in "vid" else torch.zeros_like(pixels))
    return whole._replace(
        frames=torch.stack(frames), frame_counts=sum(counts, []), media_counts=[len(own) for own in counts],
        video=videos, video_counts=lengths, texts=[texts[kind](n) for n, kind in enumerate(kinds)],
    )  # fmt: skip


def part(batch: Batch, clips: list[int]) -> Batch:
    """Some clips of a batch."""
    counts = batch.media_counts or [1] * len(batch.texts)
    media = [n for clip in clips for n in range(sum(counts[:clip]), sum(counts[: clip + 1]))]
    chosen = {"frames": media, "frame_counts": media}
    found = {name: (field, chosen.get(name, clips)) for name, field in batch._asdict().items()}
    return Batch(**{
        name: field[own] if isinstance(field, torch.Tensor) else field and [field[n] for n in own]
        for name, (field, own) in found.items()
    })  # fmt: skip


def sides(text: RowText) -> tuple[list[int], list[int]]:
    """The ids of a question on both sides of its visual tokens."""
    place = text.question.index(mark(0))
    return text.question[:place], text.question[place + 1 :]


def imagined(framework: VTokFramework, prompt: str, num_tokens: int, **sampling) -> Any:
    """What the decoder is told of one video whose visual tokens are sampled."""
    return decoder_conditioning(framework, [prompt], [sample_row(framework, prompt, num_tokens, **sampling)])
