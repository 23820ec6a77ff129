"""Makes videos from prompts: samples visual tokens, then decodes them to a video."""

from typing import Any

import torch
from torch import Tensor

from vtok.best_of import best_of
from vtok.config import ConfigError
from vtok.frame_rate import at_rate
from vtok.framework import VTokFramework
from vtok.sampling import PLAIN, Sampling
from vtok.sharded import require_alike
from vtok.tokeniser import VisualFeatures
from vtok.trained_length import warn_if_longer
from vtok.video_decoder import GenerationRow, VideoDecoder
from vtok.visual_sampling import generation_row, sample_row, sample_rows


def generate(
    framework: VTokFramework,
    prompt: str,
    seconds: float,
    fps: float | None = None,
    steps: int = 50,
    sampling: Sampling = PLAIN,
    generator: torch.Generator | None = None,
    features: VisualFeatures | None = None,
) -> Tensor:
    """Makes one ``uint8`` video (frames, 3, height, width). Arguments as in :func:`generate_batch`."""
    generators = None if generator is None else [generator]
    given = None if features is None else [features]
    return generate_batch(framework, [prompt], seconds, fps, steps, sampling, generators, given)[0]


@torch.no_grad()
def generate_batch(
    framework: VTokFramework,
    prompts: list[str],
    seconds: float,
    fps: float | None = None,
    steps: int = 50,
    sampling: Sampling = PLAIN,
    generators: list[torch.Generator] | None = None,
    features: list[VisualFeatures] | None = None,
) -> Tensor:
    """Makes a video for each of B prompts, or the best of several (:mod:`vtok.best_of`).

    First all visual tokens are sampled (:func:`vtok.visual_sampling.sample_rows`). Then the decoder makes one video of
    each prompt at once, as often as there are videos of a prompt. Under ZeRO-3 all ranks call this together. Each may
    have its own prompts.

    Args:
        framework: The model.
        prompts: The prompts.
        seconds: Length of a video. Visual tokens and the decoder's frames, at its own rate, cover it.
        fps: Frames per second of the result, by default the decoder's. At another rate the decoder's frames are
            repeated or left out (:func:`vtok.frame_rate.at_rate`).
        steps: Denoising steps.
        sampling: How the visual tokens are sampled.
        generators: One per prompt, on the CPU.
        features: Features of true videos, whose tokens replace sampled ones. They show the best that sampling could do.

    Returns:
        (B, round(seconds * fps), 3, height, width) ``uint8``.

    Raises:
        ConfigError: The model has no decoder; or under ZeRO-3, the ranks' arguments differ in more than prompts.
    """
    decoder, own_fps = decoder_of(framework), framework.config.decoder.fps
    wanted = round(seconds * own_fps)
    ratio = decoder.latents_per_frame
    num_frames = -(-(wanted - 1) // ratio) * ratio + 1  # the decoder makes 4k + 1 frames; the surplus is cut
    num_tokens = 0
    if features is None:
        num_tokens = tokens_of(framework, seconds)
        warn_if_longer(framework, framework.tokeniser.sampled(num_tokens), "make videos of at most {seconds:g} s")
    require_alike(
        framework, videos=len(prompts), visual_tokens=num_tokens, denoising_steps=steps,
        candidates=sampling.candidates, rows_of_a_prompt=1 + (sampling.guidance != 1), best_of=sampling.best_of,
    )  # fmt: skip
    empty = None
    if framework.config.decoder.true_guidance > 1:
        negative = decoder.negative_prompt
        row = sample_row(framework, negative, 0)
        empty = decoder_conditioning(framework, [negative] * len(prompts), [row] * len(prompts))

    draws = own_generators(generators, sampling.best_of)
    if features is None:
        rows = sample_rows(framework, prompts, num_tokens, sampling, draws, sampling.best_of)
    else:
        rows = [[teacher_forced_row(framework, *pair)] * sampling.best_of for pair in zip(prompts, features)]

    def make(number: int) -> Tensor:
        conditioning = decoder_conditioning(framework, prompts, [of_prompt[number] for of_prompt in rows])
        own = None if draws is None else draws[number :: sampling.best_of]
        return decoder.sample(conditioning, num_frames, steps, own, empty)[:, :wanted]

    videos = best_of(framework, sampling.best_of, prompts, seconds, make)
    return at_rate(videos, own_fps, fps or own_fps, seconds)


def own_generators(generators: list[torch.Generator] | None, videos: int) -> list[torch.Generator] | None:
    """Returns a generator for each of several videos of each prompt, those of a prompt one after the other.

    The prompt's generator draws their seeds. So a video is the same whether or not others are made beside it.
    """
    if generators is None or videos == 1:
        return generators
    return [torch.Generator().manual_seed(seed) for own in generators for seed in seeds_of(own, videos)]


def seeds_of(generator: torch.Generator, count: int) -> list[int]:
    """Draws seeds."""
    return torch.randint(2**62, (count,), generator=generator).tolist()


def tokens_of(framework: VTokFramework, seconds: float) -> int:
    """Returns the number of visual tokens of a video; both of its ends are frames."""
    return sum(framework.tokeniser.counts(round(seconds * framework.config.tokeniser.fps) + 1))


def decoder_of(framework: VTokFramework) -> VideoDecoder:
    """Returns the decoder; raises ConfigError if the model only understands."""
    if framework.decoder is None:
        raise ConfigError(f"a model with mllm.kind {framework.config.mllm.kind} understands only")
    return framework.decoder


@torch.no_grad()
def teacher_forced_row(framework: VTokFramework, prompt: str, features: VisualFeatures) -> GenerationRow:
    """Returns the row of :func:`sample_row` for the tokens of a true video."""
    visual = framework.embedded(framework.restored(features))
    ids = torch.tensor([framework.text.prompt(prompt)], device=visual.device)
    states = framework.mllm(torch.cat([framework.mllm.embed(ids), visual], 1)).conditioning[0]
    return generation_row(framework, states, visual.shape[1])


@torch.no_grad()
def decoder_conditioning(framework: VTokFramework, prompts: list[str], rows: list[GenerationRow]) -> Any:
    """Builds the decoder's conditioning for B videos."""
    decoder, caption_ids = decoder_of(framework), framework.text.caption_ids
    assert caption_ids is not None  # with a decoder there is its tokenizer
    ids = [caption_ids(prompt) for prompt in prompts]
    return decoder.condition(rows, decoder.encode_text(ids, framework.mllm.device))
