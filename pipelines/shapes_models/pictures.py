"""Asks the image model to describe new pictures, and counts the right descriptions."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionModel, LlavaNextForConditionalGeneration

from data_tools.shapes.reading import THING
from pipelines.engine import distributed
from pipelines.shapes_models import scenes
from pipelines.shapes_models.clip import CLIP
from pipelines.shapes_models.llava import picture_tokens
from pipelines.shapes_models.llm import LLAVA, text_encoder
from vtok.config import MLLMConfig
from vtok.feature_extractor import CLIPFeatureExtractor
from vtok.mllm.base import MLLM
from vtok.mllm.llava_next import split_llava
from vtok.rows.prompts import CAPTION_INSTRUCTIONS
from vtok.rows.text import TextEncoder

NEW = 11_000_000  # keeps the seed of the pictures apart from those that any model was trained on
ASKED = CAPTION_INSTRUCTIONS[0]
LONGEST = 80  # tokens of a description
AT_ONCE = 64  # descriptions


def make(
    clip: Path, llava: Path, size: int, grid: int, max_prompt_tokens: int, asked: int, seed: int
) -> dict[str, Any]:
    """Has the image model describe new pictures.

    Args:
        clip: Folder of the stage ``clip``.
        llava: Folder of the stage ``llava``.
        size: Side of a frame in pixels.
        grid: Tokens along a side of a frame.
        max_prompt_tokens: The longest prompt.
        asked: Number of pictures.
        seed: Seed of the scenes.

    Returns:
        ``descriptions_right``: the share of pictures whose description tells the number, colours and shapes of their
        things.
    """
    device = distributed.device()
    whole = LlavaNextForConditionalGeneration.from_pretrained(llava / LLAVA).to(device)
    split = split_llava(whole, MLLMConfig(weights=str(llava / LLAVA)))
    extractor = CLIPFeatureExtractor(CLIPVisionModel.from_pretrained(clip / CLIP)).to(device)
    text = text_encoder(llava / LLAVA, clip, max_prompt_tokens)

    def seen(pictures: Tensor) -> Tensor:
        return split.projector(picture_tokens(extractor, pictures.to(device), grid))

    return {"descriptions_right": descriptions_right(split.mllm, text, seen, size, range(asked), seed)}


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
