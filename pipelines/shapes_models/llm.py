"""The language model before it sees pictures: trained on captions and answers about scenes, in the rows' templates."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoTokenizer, CLIPVisionConfig, LlavaNextForConditionalGeneration

from data_tools.shapes import caption_of, item_of
from pipelines.engine import distributed
from pipelines.shapes_models import scenes
from pipelines.shapes_models.clip import CLIP, TOKENIZER
from pipelines.shapes_models.config import LLMConfig
from pipelines.shapes_study.fitting import fit, mean_of_first, mean_of_last
from vtok.assembly.tiny import BOS, EOS, wrapped, write_llava
from vtok.config import MLLMConfig
from vtok.mllm import MLLM
from vtok.mllm.llava_next import split_llava
from vtok.rows.text import TextEncoder
from vtok.video_decoder.hunyuan import CLIP_TEXT_LENGTH, HunyuanDecoder

LLAVA = "llava"


def make(folder: Path, config: LLMConfig, clip: Path, max_prompt_tokens: int, seed: int) -> dict[str, Any]:
    """Trains the language model and writes ``folder/llava``, in which LLaVA's projector is random.

    Args:
        folder: Folder of the stage.
        config: The settings.
        clip: Folder of the stage ``clip``.
        max_prompt_tokens: The longest prompt.
        seed: Seed of weights and data.

    Returns:
        The first and the last loss.
    """
    tokenizer = Tokenizer.from_file(str(clip / TOKENIZER))
    torch.manual_seed(seed)
    vision = CLIPVisionConfig.from_pretrained(clip / CLIP).to_dict()
    write_llava(folder, tokenizer, config.language, vision)
    llava = LlavaNextForConditionalGeneration.from_pretrained(folder / LLAVA)
    language, _, _ = split_llava(llava, MLLMConfig(weights=str(folder / LLAVA)))
    language.to(distributed.device())
    text = text_encoder(folder / LLAVA, clip, max_prompt_tokens)
    losses = fit(
        language, lambda step: text_loss(language, text, config.fit.batch_size, seed, step), config.fit, folder
    )
    llava.cpu().save_pretrained(folder / LLAVA)
    return {"first_loss": mean_of_first(losses), "last_loss": mean_of_last(losses)}


def text_encoder(llava: Path, clip: Path, max_prompt_tokens: int) -> TextEncoder:
    """Returns what turns captions and questions into the token ids of rows.

    Args:
        llava: Folder of the language model.
        clip: Folder of the stage ``clip``.
        max_prompt_tokens: The longest prompt.
    """
    second = wrapped(Tokenizer.from_file(str(clip / TOKENIZER)), f"{BOS} $A {EOS}", model_max_length=CLIP_TEXT_LENGTH)
    caption_ids = HunyuanDecoder.caption_tokenizer(second)
    return TextEncoder(AutoTokenizer.from_pretrained(llava), caption_ids, max_prompt_tokens)


def text_loss(language: MLLM, text: TextEncoder, batch: int, seed: int, step: int) -> Tensor:
    """Returns the cross-entropy of the next token over a step's texts, a scalar.

    Half of the texts are captions, short and detailed in turn. The other half are questions with answers. Only captions
    and answers are learned; the templates around them are not.
    """
    rows, learned = [], []
    for position in range(step * batch, (step + 1) * batch):
        scene, draws = scenes.scene_at(seed, position)
        if position % 2:
            rows.append(text.prompt(caption_of(scene, draws, detailed=position % 4 == 3)))
            learned.append(len(rows[-1]) - text.crop_start)
        else:
            item = item_of(scene, draws, "x")
            before, after = text.question(item.question)
            answer = text.answer(item.answer)
            rows.append(before + after + answer)
            learned.append(len(answer) + len(after))
    device = distributed.device()
    ids = torch.tensor(sum(rows, []), device=device)
    hidden = language(language.embed(ids)[None], [len(row) for row in rows]).last[0]
    predicting = [states[-n - 1 : -1] for states, n in zip(hidden.split([len(row) for row in rows]), learned)]
    targets = torch.tensor(sum((row[-n:] for row, n in zip(rows, learned)), []), device=device)
    return language.lm_head(torch.cat(predicting), targets).mean()
