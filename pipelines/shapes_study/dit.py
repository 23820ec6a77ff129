"""The frozen video decoder: HunyuanVideo's transformer, conditioned on the language model's states of a caption.

A third of the captions are detailed: they say where everything is, as HunyuanVideo's were. Visual tokens cannot tell
the frozen decoder what it does not understand in words.

Joint training appends the rows of visual tokens to those of the caption. Visual tokens would throw off a caption-only
decoder, so it is trained on conditioning of many lengths. Some captions are empty. In half of the batches, rows without
new information follow the caption: repeated rows, or noise with the rows' own mean and standard deviation.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import CLIPTextModel

from pipelines.engine import distributed
from pipelines.shapes_study.clip import TEXT, TOKENIZER
from pipelines.shapes_study.config import DiTConfig
from pipelines.shapes_study.fitting import fit, mean_of_first, mean_of_last
from pipelines.shapes_study.latents import CAPTIONS, LATENTS, VAE
from vtok.assembly.tiny import BOS, EOS, wrapped
from vtok.framework import VTokFramework
from vtok.video_decoder import Posterior
from vtok.video_decoder.hunyuan import CLIP_TEXT_LENGTH, Conditioning, HunyuanDecoder
from vtok.video_decoder.patch_autoencoder import PatchAutoencoder

HUNYUAN = "hunyuan"
EMPTY = 0.1  # share of the captions
LONG = 0.33  # share of the captions that are not empty
LENGTHENED = 0.5  # share of the batches
MOST_ROWS = 130  # rows to append at most: as many as the longest strategy has tokens
ENCODED_AT_ONCE = 128


def write(folder: Path, config: DiTConfig, clip: Path, latents: Path, text_dim: int, seed: int) -> None:
    """Writes ``folder/hunyuan`` with a transformer of random weights.

    Args:
        folder: Folder of the stage.
        config: The settings.
        clip: Folder of the stage ``clip``.
        latents: Folder of the stage ``latents``.
        text_dim: Width of the language model's states.
        seed: Seed of the weights.
    """
    text = CLIPTextModel.from_pretrained(clip / TEXT)
    vae = PatchAutoencoder.from_pretrained(latents / VAE)
    torch.manual_seed(seed)
    transformer = HunyuanVideoTransformer3DModel(
        **config.transformer,
        in_channels=vae.config.latent_channels,
        out_channels=vae.config.latent_channels,
        text_embed_dim=text_dim,
        pooled_projection_dim=text.config.hidden_size,
    )
    tokenizer = Tokenizer.from_file(str(clip / TOKENIZER))
    parts = dict(
        transformer=transformer, vae=vae, text_encoder_2=text,
        tokenizer_2=wrapped(tokenizer, f"{BOS} $A {EOS}", model_max_length=CLIP_TEXT_LENGTH),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=config.shift),
    )  # fmt: skip
    for name, part in parts.items():
        part.save_pretrained(folder / HUNYUAN / name)


def train(folder: Path, config: DiTConfig, framework: VTokFramework, latents: Path, seed: int) -> dict[str, Any]:
    """Trains the transformer and stores it in ``folder/hunyuan``.

    Args:
        folder: Folder of the stage.
        config: The settings.
        framework: A framework without visual tokens; its transformer is trained in place.
        latents: Folder of the stage ``latents``.
        seed: Seed of the draws.

    Returns:
        The first and the last loss.
    """
    means = load_file(latents / LATENTS)["mean"]
    framework.requires_grad_(False).to(distributed.device())
    captions = json.loads((latents / CAPTIONS).read_text())
    (empty,) = encoded(framework, [""])
    short, long = (encoded(framework, list(texts)) for texts in zip(*captions))
    framework.decoder.transformer.requires_grad_(True)

    def loss(step: int) -> Tensor:
        draws = torch.Generator().manual_seed(seed * 1_000_003 + step)
        clips = torch.randint(len(means), (config.fit.batch_size,), generator=draws)
        blank = torch.rand(len(clips), generator=draws) < EMPTY
        at_length = torch.rand(len(clips), generator=draws) < LONG
        texts = [
            empty if unsaid else (long if much else short)[clip]
            for clip, unsaid, much in zip(clips.tolist(), blank.tolist(), at_length.tolist())
        ]
        seeds = torch.randint(2**62, (len(clips),), generator=draws).tolist()
        return decoder_loss(framework.decoder, means[clips], texts, seeds, draws)

    losses = fit(framework.decoder.transformer, loss, config.fit, folder)
    framework.decoder.transformer.cpu().save_pretrained(folder / HUNYUAN / "transformer")
    return {"first_loss": mean_of_first(losses), "last_loss": mean_of_last(losses)}


class EncodedText(NamedTuple):
    """A caption as the decoder sees it.

    Attributes:
        rows: The language model's states, (R, d).
        pooled: CLIP's pooled text vector, (d',).
    """

    rows: Tensor
    pooled: Tensor


@torch.no_grad()
def encoded(framework: VTokFramework, captions: list[str]) -> list[EncodedText]:
    """Encodes captions. They are encoded once for the whole training, because the encoders are frozen."""
    text, device = framework.text, framework.mllm.embed.weight.device
    result = []
    for start in range(0, len(captions), ENCODED_AT_ONCE):
        batch = captions[start : start + ENCODED_AT_ONCE]
        prompts = [text.prompt(caption) for caption in batch]
        lengths = [len(prompt) for prompt in prompts]
        ids = torch.tensor(sum(prompts, []), device=device)
        states = framework.mllm(framework.mllm.embed(ids)[None], lengths).conditioning[0].split(lengths)
        pooled = framework.decoder.encode_text([text.caption_ids(caption) for caption in batch], device)
        result += [EncodedText(rows[text.crop_start :].clone(), one) for rows, one in zip(states, pooled)]
    return result


def decoder_loss(
    decoder: HunyuanDecoder, means: Tensor, texts: list[EncodedText], seeds: list[int], draws: torch.Generator
) -> Tensor:
    """Returns the flow-matching loss of latents, a scalar.

    Args:
        decoder: The decoder.
        means: Latents (B, C, t, h, w).
        texts: Their captions.
        seeds: Seeds of their noise.
        draws: Generator of the rows to append.
    """
    kind, count = torch.rand(2, generator=draws).tolist()  # shared by the batch, so that less padding is needed
    rows = [lengthened(text.rows, kind, count, draws) for text in texts]
    pooled = torch.stack([text.pooled for text in texts])
    conditioning = Conditioning(pad_sequence(rows, batch_first=True), [len(row) for row in rows], pooled)
    means = means.to(pooled.device)
    posterior = Posterior(means, torch.zeros_like(means))
    num_frames = (means.shape[2] - 1) * decoder.latents_per_frame + 1
    return decoder.loss(posterior, [num_frames] * len(means), conditioning, seeds).mean()


def lengthened(rows: Tensor, kind: float, count: float, draws: torch.Generator) -> Tensor:
    """Returns a caption's rows (R, d), in half of the cases followed by rows without new information.

    Args:
        rows: The caption's rows.
        kind: In 0..1: below 0.25 rows are repeated, below 0.5 noise is appended, above nothing.
        count: In 0..1: 130 to this power is the number of rows to append.
        draws: Generator of the rows.
    """
    if kind >= LENGTHENED:
        return rows
    added = round(MOST_ROWS**count)
    if kind < LENGTHENED / 2:
        more = rows[torch.randint(len(rows), (added,), generator=draws).to(rows.device)]
    else:
        noise = torch.randn(added, rows.shape[1], generator=draws).to(rows.device)
        more = rows.mean(0) + noise * rows.std(0, correction=0)
    return torch.cat([rows, more])
