"""The image model that joint training starts from: the language model, taught to read CLIP's tokens of single frames.

The paper starts from LLaVA-Next, which understands pictures but has seen no video. Every second picture comes with a
question, if its scene has one that a single frame can answer. All other pictures come with a description. Training on
text continues beside them, because the decoder is conditioned on the model's states of captions.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel, LlavaNextForConditionalGeneration

from data_tools.shapes import item_of
from pipelines.engine import distributed
from pipelines.shapes_models import scenes
from pipelines.shapes_models.clip import CLIP
from pipelines.shapes_models.llm import LLAVA, text_encoder, text_loss
from pipelines.shapes_study.config import Fitting
from pipelines.shapes_study.fitting import fit, mean_of_first, mean_of_last
from vtok.config import MLLMConfig
from vtok.feature_extractor import CLIPFeatureExtractor
from vtok.mllm import MLLM
from vtok.mllm.llava_next import split_llava
from vtok.rows.plan import assemble, plan_rows
from vtok.rows.text import RowText, TextEncoder
from vtok.spatial_encoder import pool_grid

IN_ONE_FRAME = ("counting", "relative_position", "relative_size", "colour")
TEXTS = 0.25  # rows without a picture, relative to the rows with one


def make(
    folder: Path, config: Fitting, clip: Path, llm: Path, size: int, grid: int, max_prompt_tokens: int, seed: int
) -> dict[str, Any]:
    """Trains the image model and writes ``folder/llava``.

    Args:
        folder: Folder of the stage.
        config: The settings.
        clip: Folder of the stage ``clip``.
        llm: Folder of the stage ``llm``.
        size: Side of a frame in pixels.
        grid: Tokens along a side of a frame.
        max_prompt_tokens: The longest prompt.
        seed: Seed of the data.

    Returns:
        The first and the last loss.
    """
    device = distributed.device()
    llava = LlavaNextForConditionalGeneration.from_pretrained(llm / LLAVA)
    split = split_llava(llava, MLLMConfig(weights=str(llm / LLAVA)))
    model = nn.ModuleDict({"language": split.mllm, "projector": split.projector}).to(device)
    extractor = CLIPFeatureExtractor(CLIPVisionModel.from_pretrained(clip / CLIP)).requires_grad_(False).to(device)
    text = text_encoder(llm / LLAVA, clip, max_prompt_tokens)

    def loss(step: int) -> Tensor:
        pictures, texts = picture_samples(text, config.batch_size, size, seed, step)
        tokens = picture_tokens(extractor, pictures.to(device), grid)
        seen = picture_loss(split.mllm, split.projector(tokens), texts, text)
        return seen + text_loss(split.mllm, text, round(TEXTS * config.batch_size), seed, step)

    losses = fit(model, loss, config, folder)
    shutil.copytree(llm / LLAVA, folder / LLAVA, dirs_exist_ok=True)  # brings the tokenizer
    llava.cpu().save_pretrained(folder / LLAVA)
    return {"first_loss": mean_of_first(losses), "last_loss": mean_of_last(losses)}


@torch.no_grad()
def picture_tokens(extractor: CLIPFeatureExtractor, pictures: Tensor, grid: int) -> Tensor:
    """Maps frames (n, 3, size, size) ``uint8`` to a key frame's spatial features, (n, grid * grid, d_v)."""
    return pool_grid(extractor(pictures), grid)


def picture_samples(text: TextEncoder, batch: int, size: int, seed: int, step: int) -> tuple[Tensor, list[RowText]]:
    """Draws the samples of a step: frames (batch, 3, size, size) ``uint8``, and the text of each one's row."""
    pictures, texts = [], []
    for position in range(step * batch, (step + 1) * batch):
        scene, draws = scenes.scene_at(seed, position)
        frame = draws.integer("frame", scenes.FRAMES)
        pictures.append(scenes.frames_of(scene, size)[frame])
        if position % 2 and scene.category in IN_ONE_FRAME:
            item = item_of(scene, draws, "x")
            texts.append(text.sample(None, item.question, item.answer, 0))
        else:
            texts.append(text.sample(scenes.picture_caption(scene, frame), None, None, position))
    return torch.stack(pictures), texts


def picture_loss(language: MLLM, visual: Tensor, texts: list[RowText], text: TextEncoder) -> Tensor:
    """Returns the cross-entropy of the answers, a scalar.

    Args:
        language: The language model.
        visual: Projected tokens of the pictures, (batch, S, d).
        texts: Their rows.
        text: Builds rows.
    """
    plan = plan_rows(texts, [visual.shape[1]] * len(texts), text.crop_start, generation=False).to(visual.device)
    rows = assemble(plan, language.embed(plan.token_ids), visual)
    states = language(rows, plan.row_lengths).last[0]
    return language.lm_head(states[plan.answer_from], plan.answer_ids).mean()
