"""The image model, trained further on pictures. The decoder's conditioning stays as it is.

The decoder reads hidden states from below the language model's last layers. So embeddings and the layers below these
states are frozen here; the projector, the last layers and the head learn.
"""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel, LlavaNextForConditionalGeneration

from data_tools.shapes.reading import THING
from pipelines.engine import distributed
from pipelines.shapes_study import scenes
from pipelines.shapes_study.clip import CLIP
from pipelines.shapes_study.config import Fitting
from pipelines.shapes_study.fitting import fit, mean_of_first, mean_of_last
from pipelines.shapes_study.llava import picture_loss, picture_samples, picture_tokens
from pipelines.shapes_study.llm import LLAVA, text_encoder
from vtok.config import MLLMConfig
from vtok.feature_extractor import CLIPFeatureExtractor
from vtok.mllm.base import CONDITIONING_LAYER, MLLM
from vtok.mllm.llava_next import split_llava
from vtok.rows.prompts import CAPTION_INSTRUCTIONS
from vtok.rows.text import TextEncoder

LATER, NEW = 10_000_000, 11_000_000  # keep seeds apart: of the scenes it learns from, and of those it is asked about
ASKED = CAPTION_INSTRUCTIONS[0]
LONGEST = 80  # tokens of a description
AT_ONCE = 64  # descriptions


def make(
    folder: Path, config: Fitting, clip: Path, llava: Path, size: int, grid: int, max_prompt_tokens: int, asked: int,
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Trains the image model and writes ``folder/llava``.

    Args:
        folder: Folder of the stage.
        config: The settings.
        clip: Folder of the study's stage ``clip``.
        llava: Folder of the study's stage ``llava``.
        size: Side of a frame in pixels.
        grid: Tokens along a side of a frame.
        max_prompt_tokens: The longest prompt.
        asked: Pictures to describe.
        seed: Seed of the scenes.

    Returns:
        The first and the last loss, and the share of new pictures whose description tells the number, colours and
        shapes of their things.
    """
    whole = LlavaNextForConditionalGeneration.from_pretrained(llava / LLAVA)
    split = split_llava(whole, MLLMConfig(weights=str(llava / LLAVA)))
    model = nn.ModuleDict({"language": split.mllm, "projector": split.projector}).to(distributed.device())
    freeze_below_conditioning(split.mllm)
    extractor = CLIPFeatureExtractor(CLIPVisionModel.from_pretrained(clip / CLIP)).requires_grad_(False)
    extractor.to(distributed.device())
    text = text_encoder(llava / LLAVA, clip, max_prompt_tokens)

    def seen(pictures: Tensor) -> Tensor:
        return split.projector(picture_tokens(extractor, pictures.to(distributed.device()), grid))

    def loss(step: int) -> Tensor:
        pictures, texts = picture_samples(text, config.batch_size, size, seed + LATER, step)
        return picture_loss(split.mllm, seen(pictures), texts, text)

    losses = fit(model, loss, config, folder)
    shutil.copytree(llava / LLAVA, folder / LLAVA, dirs_exist_ok=True)  # brings the tokenizer
    whole.cpu().save_pretrained(folder / LLAVA)
    right = descriptions_right(split.mllm, text, seen, size, range(asked), seed)
    return {"first_loss": mean_of_first(losses), "last_loss": mean_of_last(losses), "descriptions_right": right}


def freeze_below_conditioning(language: MLLM) -> None:
    """Freezes what the states depend on that the decoder reads."""
    model = language.causal_lm.model
    language.embed.requires_grad_(False)
    model.layers[: len(model.layers) + 1 + CONDITIONING_LAYER].requires_grad_(False)


@torch.no_grad()
def descriptions_right(
    language: MLLM, text: TextEncoder, seen: Callable[[Tensor], Tensor], size: int, numbers: range, seed: int
) -> float:
    """Returns the share of new pictures whose description tells the number, colours and shapes of their things.

    Args:
        language: The language model.
        text: Builds rows.
        seen: Maps pictures to the tokens that the language model reads.
        size: Side of a picture in pixels.
        numbers: Positions of the scenes. A scene's first frame is described.
        seed: Seed of the scenes.
    """
    told = [scenes.scene_at(seed + NEW, number)[0] for number in numbers]
    before, after = (language.embed(torch.tensor(ids, device=language.device)) for ids in text.question(ASKED))
    end, right = text.tokenizer.eos_token_id, 0
    for start in range(0, len(told), AT_ONCE):
        part = told[start : start + AT_ONCE]
        tokens = seen(torch.stack([scenes.frames_of(scene, size)[0] for scene in part]))
        rows = torch.cat([before.expand(len(part), -1, -1), tokens, after.expand(len(part), -1, -1)], dim=1)
        ids = language.causal_lm.generate(
            inputs_embeds=rows, attention_mask=torch.ones(rows.shape[:2], dtype=torch.long, device=rows.device),
            max_new_tokens=LONGEST, do_sample=False, eos_token_id=end, pad_token_id=end,
        )  # fmt: skip
        said = text.tokenizer.batch_decode(ids, skip_special_tokens=True)
        right += sum(things(one) == things(scenes.picture_caption(scene, 0)) for one, scene in zip(said, part))
    return right / len(told)


def things(description: str) -> Counter:
    """Counts the things of each colour and shape in a description."""
    return Counter(match.groups() for match in THING.finditer(description.lower()))
