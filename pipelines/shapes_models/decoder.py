"""Trains the study's video decoder, with wider latents, to follow short captions.

The study pads all captions to the longest row that a strategy appends. Here the rows of a batch are as long as its
longest caption, which is a quarter of that.
"""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import CLIPTextModel

from pipelines.shapes_models import ranks
from pipelines.shapes_models.config import DecoderFitting
from pipelines.shapes_models.wider import wider_decoder
from pipelines.shapes_study.clip import TEXT
from pipelines.shapes_study.dit import HUNYUAN, encoded
from pipelines.shapes_study.fitting import mean_of_first, mean_of_last
from pipelines.shapes_study.latents import CAPTIONS, LATENTS, VAE
from pipelines.shapes_study.stages import Done
from vtok.flow_matching import interpolate, shifted_logit_normal
from vtok.framework import VTokFramework
from vtok.video_decoder.base import TIMESTEP_SCALE
from vtok.video_decoder.patch_autoencoder import PatchAutoencoder

TRANSFORMER, TOLD = "transformer", "told.safetensors"
OUTERMOST = 1e-4  # share of the noise levels left out at each end


def write(folder: Path, study: dict[str, Done], tower: Path, clips: Path, seed: int) -> None:
    """Writes ``folder/hunyuan``, with the study's transformer made wider.

    Args:
        folder: Folder of the stage.
        study: The study's stages.
        tower: Folder of the stage ``tower``.
        clips: Folder of the stage ``clips``.
        seed: Seed for :func:`wider_decoder`.
    """
    from_study = study["dit"].folder / HUNYUAN
    narrow = HunyuanVideoTransformer3DModel.from_pretrained(from_study / TRANSFORMER)
    vae = PatchAutoencoder.from_pretrained(clips / VAE)
    parts = {
        TRANSFORMER: wider_decoder(narrow, vae.config.latent_channels, seed),
        "vae": vae,
        "text_encoder_2": CLIPTextModel.from_pretrained(tower / TEXT),
        "scheduler": FlowMatchEulerDiscreteScheduler.from_pretrained(from_study / "scheduler"),
    }
    for name, part in parts.items():
        part.save_pretrained(folder / HUNYUAN / name)
    target = folder / HUNYUAN / "tokenizer_2"
    target.mkdir(exist_ok=True)
    for file in (from_study / "tokenizer_2").iterdir():
        (target / file.name).write_bytes(file.read_bytes())


def train(folder: Path, config: DecoderFitting, framework: VTokFramework, clips: Path) -> dict[str, Any]:
    """Trains the transformer of ``folder/hunyuan`` and stores the running average of its weights there.

    Args:
        folder: Folder of the stage.
        config: The settings.
        framework: A framework with this decoder and without visual tokens, which encodes the captions.
        clips: Folder of the stage ``clips``.

    Returns:
        The first and the last loss.
    """
    if not (folder / TOLD).exists():
        save_file(told(framework, json.loads((clips / CAPTIONS).read_text())), folder / TOLD)
    shift = framework.decoder.scheduler.config.shift
    ranks.on_processes(config.processes, train_share, folder, config, clips, shift)
    transformer = HunyuanVideoTransformer3DModel.from_pretrained(folder / HUNYUAN / TRANSFORMER)
    transformer.load_state_dict(ranks.averaged(folder))
    transformer.save_pretrained(folder / HUNYUAN / TRANSFORMER)
    losses = ranks.losses(folder)
    return {"first_loss": mean_of_first(losses), "last_loss": mean_of_last(losses)}


def told(framework: VTokFramework, captions: list[str]) -> dict[str, Tensor]:
    """Encodes captions once for the whole training; the encoders are frozen.

    Returns:
        ``rows`` (n, R, d), ``counts`` (n,) and ``pooled`` (n, d') of the n distinct captions, the empty one first; and
        ``index`` (clips,), the number of each clip's caption among them.
    """
    distinct = ["", *sorted(set(captions))]
    texts = encoded(framework, distinct)
    place = {caption: number for number, caption in enumerate(distinct)}
    return {
        "rows": pad_sequence([text.rows for text in texts], batch_first=True).half().cpu(),
        "counts": torch.tensor([len(text.rows) for text in texts]),
        "pooled": torch.stack([text.pooled for text in texts]).cpu(),
        "index": torch.tensor([place[caption] for caption in captions]),
    }


def train_share(folder: Path, config: DecoderFitting, clips: Path, shift: float) -> None:
    """Trains with this process's share of each batch.

    Args:
        folder: Folder of the stage.
        config: The settings.
        clips: Folder of the stage ``clips``.
        shift: Shift of the noise levels, the same as the sampler's.
    """
    latents, text = load_file(clips / LATENTS)["mean"], load_file(folder / TOLD)
    transformer = HunyuanVideoTransformer3DModel.from_pretrained(folder / HUNYUAN / TRANSFORMER)

    def loss(draws: torch.Generator, count: int) -> Tensor:
        chosen = torch.randint(len(latents), (count,), generator=draws)
        captions = text["index"][chosen].clone()
        captions[torch.rand(count, generator=draws) < config.empty] = 0
        clean = latents[chosen].float()
        noise = torch.randn(clean.shape, generator=draws)
        sigma = stratified(count, shift, draws)
        noisy = interpolate(clean, noise, sigma.view(-1, 1, 1, 1, 1))
        counts = text["counts"][captions]
        rows = text["rows"][captions, : int(counts.max())].float()
        velocity = velocity_of(transformer, noisy, sigma, rows, counts, text["pooled"][captions])
        return F.mse_loss(velocity, noise - clean)

    ranks.train(transformer, loss, is_matrix, config, folder)


def stratified(count: int, shift: float, draws: torch.Generator) -> Tensor:
    """Draws noise levels (count,), one from each of ``count`` equally likely ranges, so that the loss varies less."""
    share = (torch.arange(count) + torch.rand(count, generator=draws)) / count
    return shifted_logit_normal(torch.special.ndtri(share.clamp(OUTERMOST, 1 - OUTERMOST)), shift)


def velocity_of(
    transformer: nn.Module, noisy: Tensor, sigma: Tensor, rows: Tensor, counts: Tensor, pooled: Tensor
) -> Tensor:
    """Predicts the velocity of noisy latents, (B, C, t, h, w).

    Args:
        transformer: The transformer.
        noisy: Latents (B, C, t, h, w).
        sigma: Their noise levels (B,).
        rows: The language model's states of their captions, (B, R, d).
        counts: Number of rows of each caption, (B,).
        pooled: The pooled text vectors, (B, d').
    """
    mask = (torch.arange(rows.shape[1]) < counts[:, None]).float()
    guidance = torch.full_like(sigma, TIMESTEP_SCALE)  # guidance of 1 means none: the transformer is not distilled
    return transformer(
        hidden_states=noisy, timestep=sigma * TIMESTEP_SCALE, encoder_hidden_states=rows, encoder_attention_mask=mask,
        pooled_projections=pooled, guidance=guidance, return_dict=False,
    )[0]  # fmt: skip


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix inside a block: not an embedding, a modulation or the last projection."""
    inside = any(part in name for part in ("attn", "ff", "proj_mlp")) or ("single" in name and "proj_out" in name)
    return parameter.ndim == 2 and inside and "norm" not in name
