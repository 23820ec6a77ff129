"""Wan's texts: captions for its text encoder, and what guidance leads away from."""

from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from transformers import PreTrainedTokenizerBase

# Rows that the transformer reads, including zeros.
TEXT_ROWS = 512

# ``sample_neg_prompt`` of Wan's repository, in its language: garish colours, overexposure, stillness, blur, subtitles,
# low quality, extra fingers, badly drawn hands and faces, deformed limbs, a crowded background, and so on.
NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，"
    "多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，"
    "倒着走"
)


def umt5_ids(tokenizer: PreTrainedTokenizerBase, caption: str) -> list[int]:
    """Tokenises a caption for UMT5, cleaned like in diffusers' pipeline, without padding. Control words stay text."""
    length = {"truncation": True, "max_length": TEXT_ROWS}
    return tokenizer(prompt_clean(caption), split_special_tokens=True, **length).input_ids
