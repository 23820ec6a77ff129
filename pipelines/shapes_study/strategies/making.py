"""What an arm's videos show. Prompts are the short captions, which leave places and sizes open.

generation    from the prompt and the visual tokens that the arm samples; an arm without tokens has the prompt alone
prompt        from the prompt alone, though the arm has tokens
own           from the prompt and the true clip's own tokens: the best that sampling could do

Two ceilings stand above them: the autoencoder's reconstruction of the true clip, and the true clip itself. A video's
noise depends on the clip alone, so it is the same in all arms, seeds and kinds.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_tools.draws import keyed_seed
from data_tools.shapes import TV_ALIGN
from data_tools.shapes.judge import answer
from pipelines.shapes_study.strategies.config import StrategiesConfig
from pipelines.shapes_study.strategies.likeness import AWAY, OCTAVES, level, likeness
from pipelines.shapes_study.strategies.model import chosen, tokens_of
from pipelines.shapes_study.strategies.world import Clip, Encoded, decoder_count, decoder_frames, first_of_each
from vtok.config import DecoderConfig
from vtok.framework import VTokFramework
from vtok.generation import decoder_conditioning, teacher_forced_row
from vtok.sampling import PLAIN
from vtok.video_decoder import GenerationRow, decode_video, encode_video
from vtok.visual_sampling import sample_row, sample_rows

KINDS = PROMPT, GENERATION, OWN = "prompt", "generation", "own"
CEILINGS = AUTOENCODER, TRUE = "autoencoder", "true clip"
SHOWN = "shown.npz"


def made(
    framework: VTokFramework, config: StrategiesConfig, world: Encoded, per_category: int, kind: str
) -> Iterator[tuple[Clip, np.ndarray]]:
    """Makes a video for the first clips of each of TV-Align's categories.

    Args:
        framework: The trained arm, at evaluation.
        config: The study.
        world: The clips.
        per_category: Clips of each category.
        kind: One of ``KINDS``.

    Yields:
        The clip, and the video (F, H, W, 3) ``uint8``.
    """
    places = first_of_each(world.clips, per_category, TV_ALIGN)
    rows = rows_of(framework, config, world, places, kind)
    for first in range(0, len(places), config.asked.batch):
        clips = [world.clips[place] for place in places[first : first + config.asked.batch]]
        videos = decoded(framework, config, clips, rows[first : first + len(clips)])
        yield from zip(clips, videos.permute(0, 1, 3, 4, 2).cpu().numpy())


def rows_of(
    framework: VTokFramework, config: StrategiesConfig, world: Encoded, places: list[int], kind: str
) -> list[GenerationRow]:
    """Returns the rows of some clips, by kind. Tokens of all of them are sampled together."""
    prompts = [world.clips[place].item.prompt for place in places]
    if kind == OWN:
        features = world.features(framework.tokeniser, places)
        return [
            teacher_forced_row(framework, prompt, chosen(features, [number])) for number, prompt in enumerate(prompts)
        ]
    tokens = tokens_of(config, framework) if kind == GENERATION else 0
    noise = [noise_of(config, world.clips[place], "tokens") for place in places]
    return [row for [row] in sample_rows(framework, prompts, tokens, PLAIN, noise)]


@torch.no_grad()
def decoded(framework: VTokFramework, config: StrategiesConfig, clips: list[Clip], rows: list[GenerationRow]) -> Tensor:
    """Decodes the language model's states to videos (B, F, 3, H, W) ``uint8``."""
    decoder, empty = framework.decoder, None
    if framework.config.decoder.true_guidance > 1:
        negative = decoder.negative_prompt
        row = sample_row(framework, negative, 0)
        empty = decoder_conditioning(framework, [negative] * len(clips), [row] * len(clips))
    told = decoder_conditioning(framework, [clip.item.prompt for clip in clips], rows)
    noise = [noise_of(config, clip, "video") for clip in clips]
    frames = decoder_count(framework.config.decoder, config.world.seconds)
    return decoder.sample(told, frames, config.asked.denoising_steps, noise, empty)


def noise_of(config: StrategiesConfig, clip: Clip, what: str) -> torch.Generator:
    """Returns a generator that depends on the clip and on nothing else of the run."""
    return torch.Generator().manual_seed(keyed_seed(config.seed, 0, f"{what}/{clip.item.id}"))


def ceiling(
    framework: VTokFramework, config: StrategiesConfig, world: Encoded, per_category: int, kind: str
) -> Iterator[tuple[Clip, np.ndarray]]:
    """Yields what :func:`made` does for one of ``CEILINGS``."""
    for place in first_of_each(world.clips, per_category, TV_ALIGN):
        clip = world.clips[place]
        frames = decoder_frames(clip.scene, framework.config.decoder, config.world.seconds)
        yield clip, reconstructed(framework, frames) if kind == AUTOENCODER else frames


def reconstructed(framework: VTokFramework, frames: np.ndarray) -> np.ndarray:
    """Encodes and decodes frames (F, H, W, 3) ``uint8``."""
    vae = framework.decoder.vae
    video = torch.from_numpy(frames).permute(0, 3, 1, 2)[None].to(framework.mllm.device)
    return decode_video(vae, encode_video(vae, video).mean)[0].permute(0, 2, 3, 1).cpu().numpy()


def judged(
    videos: Iterable[tuple[Clip, np.ndarray]], decoder: DecoderConfig, seconds: float, folder: Path
) -> dict[str, list[int]]:
    """Judges videos from their pixels, and keeps the first of each category.

    Args:
        videos: The clips, and the videos that were made for them.
        decoder: Gives the frame rate and the size of the true clips.
        seconds: Length of a clip.
        folder: Gets ``SHOWN``, by category the first video.

    Returns:
        ``right``: 1 or 0 for each question; ``place`` and ``size``: levels of :class:`Likeness`.
    """
    found: dict[str, list[int]] = {"right": [], "place": [], "size": []}
    first: dict[str, np.ndarray] = {}
    for clip, video in videos:
        first.setdefault(clip.item.category, video)
        found["right"].append(int(answer(video, clip.item) == clip.item.answer))
        like = likeness(video, decoder_frames(clip.scene, decoder, seconds))
        found["place"].append(level(like.place, AWAY))
        found["size"].append(level(like.size, OCTAVES))
    np.savez(folder / SHOWN, **first)
    return found
