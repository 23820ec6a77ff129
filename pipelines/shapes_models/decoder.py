"""Trains the video decoder: HunyuanVideo's transformer, in small, from random weights.

It is conditioned on the language model's states of a caption, as HunyuanVideo is. Captions are short or detailed. In
some batches the tokens of the clip's first frame follow the caption, as in HunyuanVideo's training for images to
videos. They are noisy, since the visual tokens that VTok samples are not exact either.
"""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import CLIPTextModel

from pipelines.shapes_models import ranks
from pipelines.shapes_models.clip import TEXT
from pipelines.shapes_models.clips import CAPTIONS, LATENTS, VAE
from pipelines.shapes_models.config import DecoderFitting, ModelsConfig
from pipelines.shapes_study.fitting import mean_of_first, mean_of_last
from vtok.assembly.tiny import BOS, EOS, wrapped
from vtok.flow_matching import interpolate, shifted_logit_normal
from vtok.framework import VTokFramework
from vtok.video_decoder.base import TIMESTEP_SCALE
from vtok.video_decoder.hunyuan import CLIP_TEXT_LENGTH
from vtok.video_decoder.patch_autoencoder import PatchAutoencoder

HUNYUAN = "hunyuan"
TRANSFORMER, TOLD, SHOWN = "transformer", "told.safetensors", "shown.safetensors"
NOISIEST = 0.5  # noise in the tokens of a first frame, relative to their standard deviation
ENCODED_AT_ONCE = 128
OUTERMOST = 1e-4  # share of the noise levels left out at each end


def write(folder: Path, config: ModelsConfig, tower: Path, tokenizer: Path, clips: Path) -> None:
    """Writes ``folder/hunyuan`` with a transformer of random weights.

    Args:
        folder: Folder of the stage.
        config: The settings.
        tower: Folder of the stage ``tower``.
        tokenizer: The text tower's ``tokenizer.json``.
        clips: Folder of the stage ``clips``.
    """
    vae = PatchAutoencoder.from_pretrained(clips / VAE)
    text = CLIPTextModel.from_pretrained(tower / TEXT)
    torch.manual_seed(config.later_seed)
    channels = vae.config.latent_channels
    transformer = HunyuanVideoTransformer3DModel(
        **config.transformer, in_channels=channels, out_channels=channels,
        text_embed_dim=config.llm.language["hidden_size"], pooled_projection_dim=text.config.hidden_size,
    )  # fmt: skip
    words = Tokenizer.from_file(str(tokenizer))
    parts = {
        TRANSFORMER: transformer,
        "vae": vae,
        "text_encoder_2": text,
        "tokenizer_2": wrapped(words, f"{BOS} $A {EOS}", model_max_length=CLIP_TEXT_LENGTH),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=config.shift),
    }
    for name, part in parts.items():
        part.save_pretrained(folder / HUNYUAN / name)


def train(
    folder: Path, config: DecoderFitting, framework: VTokFramework, projector: nn.Module, clips: Path, seed: int
) -> dict[str, Any]:
    """Trains the transformer of ``folder/hunyuan`` and stores the running average of its weights there.

    Args:
        folder: Folder of the stage.
        config: The settings.
        framework: A framework with this decoder and without visual tokens, which encodes the captions.
        projector: The image model's projector.
        clips: Folder of the stage ``clips``.
        seed: Seed of the noise in the tokens of first frames.

    Returns:
        The first and the last loss.
    """
    short, detailed = json.loads((clips / CAPTIONS).read_text())
    if not (folder / TOLD).exists():
        save_file(told(framework, short + detailed), folder / TOLD)
    if not (folder / SHOWN).exists():
        texts = [(short, detailed)[number % 2][number] for number in range(len(short))]
        key_frames = load_file(clips / LATENTS)["key_frame"].float()
        save_file(shown(framework, projector, texts, noisy_tokens(key_frames, seed)), folder / SHOWN)
    shift = framework.decoder.scheduler.config.shift
    ranks.on_processes(config.processes, train_share, folder, config, clips, shift)
    transformer = HunyuanVideoTransformer3DModel.from_pretrained(folder / HUNYUAN / TRANSFORMER)
    transformer.load_state_dict(ranks.averaged(folder))
    transformer.save_pretrained(folder / HUNYUAN / TRANSFORMER)
    losses = ranks.losses(folder)
    return {"first_loss": mean_of_first(losses), "last_loss": mean_of_last(losses)}


@torch.no_grad()
def told(framework: VTokFramework, captions: list[str]) -> dict[str, Tensor]:
    """Encodes captions as the decoder reads them.

    Returns:
        ``rows`` (U, R, d) ``float16`` and ``counts`` (U,), the states of the U different captions and their numbers;
        ``pooled`` (U, d'); ``index`` (n,), the place of each caption among them. The first of them is empty.
    """
    distinct = list(dict.fromkeys(["", *captions]))
    text, device, pooled = framework.text, framework.mllm.device, []
    for start in range(0, len(distinct), ENCODED_AT_ONCE):
        ids = [text.caption_ids(caption) for caption in distinct[start : start + ENCODED_AT_ONCE]]
        pooled += framework.decoder.encode_text(ids, device)
    place = {caption: number for number, caption in enumerate(distinct)}
    return {
        **padded(encoded(framework, distinct)),
        "pooled": torch.stack(pooled).cpu(),
        "index": torch.tensor([place[caption] for caption in captions]),
    }


def noisy_tokens(tokens: Tensor, seed: int) -> Tensor:
    """Adds noise to tokens (n, S, d): per clip between none and ``NOISIEST`` of their standard deviations."""
    draws = torch.Generator().manual_seed(seed)
    share = NOISIEST * torch.rand(len(tokens), 1, 1, generator=draws)
    return tokens + share * tokens.std((0, 1)) * torch.randn(tokens.shape, generator=draws)


@torch.no_grad()
def shown(framework: VTokFramework, projector: nn.Module, captions: list[str], tokens: Tensor) -> dict[str, Tensor]:
    """Encodes captions that are followed by tokens of a picture.

    Args:
        framework: Encodes the captions.
        projector: Maps tokens to the language model's width.
        captions: The captions.
        tokens: The pictures' tokens (n, S, d_v).

    Returns:
        ``rows`` (n, R, d) ``float16`` and ``counts`` (n,), the states of caption and tokens and their numbers.
    """
    return padded(encoded(framework, captions, projector(tokens.to(framework.mllm.device))))


@torch.no_grad()
def encoded(framework: VTokFramework, captions: list[str], visual: Tensor | None = None) -> list[Tensor]:
    """Returns the language model's states that the decoder reads, (R_i, d) ``float16`` for each caption.

    Args:
        framework: Encodes the captions.
        captions: The n captions.
        visual: Embedded visual tokens that follow them, (n, S, d).
    """
    text, language, rows = framework.text, framework.mllm, []
    for start in range(0, len(captions), ENCODED_AT_ONCE):
        own = slice(start, start + ENCODED_AT_ONCE)
        prompts = [torch.tensor(text.prompt(caption), device=language.device) for caption in captions[own]]
        parts = [language.embed(prompt) for prompt in prompts]
        if visual is not None:
            parts = [torch.cat(pair) for pair in zip(parts, visual[own])]
        lengths = [len(part) for part in parts]
        states = language(torch.cat(parts)[None], lengths).conditioning[0].split(lengths)
        rows += [row[text.crop_start :].half().cpu() for row in states]
    return rows


def padded(rows: list[Tensor]) -> dict[str, Tensor]:
    """Pads rows of states, each (R_i, d): ``rows`` (n, R, d) and their ``counts`` (n,)."""
    return {
        "rows": pad_sequence(rows, batch_first=True),
        "counts": torch.tensor([len(row) for row in rows]),
    }


def train_share(folder: Path, config: DecoderFitting, clips: Path, shift: float) -> None:
    """Trains with this process's share of each batch.

    Args:
        folder: Folder of the stage.
        config: The settings.
        clips: Folder of the stage ``clips``.
        shift: Shift of the noise levels, the same as the sampler's.
    """
    latents, text, picture = load_file(clips / LATENTS)["mean"], load_file(folder / TOLD), load_file(folder / SHOWN)
    transformer = HunyuanVideoTransformer3DModel.from_pretrained(folder / HUNYUAN / TRANSFORMER)

    def loss(draws: torch.Generator, count: int) -> Tensor:
        chosen = torch.randint(len(latents), (count,), generator=draws)
        with_picture = float(torch.rand((), generator=draws)) < config.shown
        detailed = chosen % 2 if with_picture else torch.rand(count, generator=draws) < config.detailed
        captions = text["index"][chosen + len(latents) * detailed]
        if not with_picture:
            captions[torch.rand(count, generator=draws) < config.empty] = 0
        rows, counts = states_of(picture, chosen) if with_picture else states_of(text, captions)
        clean = latents[chosen].float()
        noise = torch.randn(clean.shape, generator=draws)
        sigma = stratified(count, shift, draws)
        noisy = interpolate(clean, noise, sigma.view(-1, 1, 1, 1, 1))
        velocity = velocity_of(transformer, noisy, sigma, rows, counts, text["pooled"][captions])
        return F.mse_loss(velocity, noise - clean)

    ranks.train(transformer, loss, is_matrix, config, folder)


def states_of(stored: dict[str, Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
    """Returns stored states (B, R, d) without needless padding, and their numbers (B,)."""
    counts = stored["counts"][index]
    return stored["rows"][index, : int(counts.max())].float(), counts


def stratified(count: int, shift: float, draws: torch.Generator) -> Tensor:
    """Returns noise levels (count,), one from each of ``count`` equally likely ranges, so that the loss varies less."""
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
