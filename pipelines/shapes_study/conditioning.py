"""Measures how much the conditioning helps the frozen decoder: ``L_dec`` of the same clips under several conditionings.

The clips, their noise and the noise levels are the same each time. So any difference comes from the conditioning.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_tools.items import Item, read_items
from data_tools.video.decode import validate
from data_tools.video.views import decoder_view
from pipelines.inference.load import Run
from pipelines.inference.understand import Understanding
from pipelines.shapes_study.config import StudyConfig
from pipelines.shapes_study.latents import seen
from vtok.framework import VTokFramework
from vtok.generation import decoder_conditioning, sample_row, teacher_forced_row
from vtok.video_decoder import GenerationRow, Posterior

TOLD = NOTHING, CAPTION, OWN, ANOTHERS = "nothing", "caption", "and its own tokens", "and another clip's"
DRAWS = 2  # draws of noise for each clip
BATCH = 30


@torch.no_grad()
def worth(folder: Path, study: StudyConfig, load: Callable[[], Run], clips: Path) -> dict[str, Any]:
    """Returns ``losses``: ``L_dec`` by conditioning.

    Every run is measured with captions alone. A trained run with visual tokens is also measured with the clip's own
    tokens and with another clip's. An untrained run is also measured without any text.

    Args:
        folder: Folder of the stage; nothing is written to it.
        study: The study.
        load: Loads the run.
        clips: Folder of the clips, with their items.
    """
    config, framework, step = load()
    items = read_items(clips / "items.jsonl")
    posterior = posterior_of(study, framework, items, clips)
    prompts = [item.prompt for item in items]
    empty = [""] * len(items)
    told = {CAPTION: (prompts, [sample_row(framework, prompt, 0) for prompt in prompts])}
    if step == 0:
        told[NOTHING] = (empty, [sample_row(framework, "", 0)] * len(items))
    elif framework.tokeniser.feature_dims:
        sight = Understanding(config, framework)
        features = [sight.features_of(clips / f"{item.id}.mp4") for item in items]
        row = partial(teacher_forced_row, framework)
        told[OWN] = (prompts, list(map(row, prompts, features)))
        told[ANOTHERS] = (prompts, list(map(row, prompts, features[1:] + features[:1])))
    return {"losses": {what: decoder_loss(framework, posterior, *given) for what, given in told.items()}}


def posterior_of(study: StudyConfig, framework: VTokFramework, items: list[Item], clips: Path) -> Posterior:
    """Encodes the clips as training does; returns the posterior of their latents."""
    view = decoder_view(study.seconds, study.latents.fps, study.latents.size, study.latents.size)
    paths = [clips / f"{item.id}.mp4" for item in items]
    videos = torch.stack([seen(path, validate(path).duration, study.seconds, view) for path in paths])
    return framework.decoder.encode(videos.to(framework.mllm.embed.weight.device))


def decoder_loss(
    framework: VTokFramework, posterior: Posterior, prompts: list[str], rows: list[GenerationRow]
) -> float:
    """Returns the mean loss over clips and draws of noise. The noise depends on the clip's number alone."""
    losses = [
        batch_loss(framework, posterior, prompts, rows, slice(start, start + BATCH), draw)
        for draw in range(DRAWS)
        for start in range(0, len(prompts), BATCH)
    ]
    return float(torch.cat(losses).mean())


def batch_loss(
    framework: VTokFramework,
    posterior: Posterior,
    prompts: list[str],
    rows: list[GenerationRow],
    part: slice,
    draw: int,
) -> Tensor:
    """Returns the losses (B,) of the clips of ``part``."""
    decoder, shown = framework.decoder, Posterior(posterior.mean[part], posterior.std[part])
    frames = (shown.mean.shape[2] - 1) * decoder.latents_per_frame + 1
    seeds = [DRAWS * clip + draw for clip in range(*part.indices(len(prompts)))]
    return decoder.loss(shown, [frames] * len(seeds), decoder_conditioning(framework, prompts[part], rows[part]), seeds)
