"""Models for measuring: the framework's own code on random weights, of the size that is asked for."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import HunyuanVideoTransformer3DModel
from torch import Tensor
from transformers import LlavaNextConfig

from vtok.assembly.architectures import assemble
from vtok.assembly.tiny import write_tiny_models
from vtok.config import DecoderConfig, MLLMConfig, ModelConfig, VTokConfig
from vtok.framework import VTokFramework
from vtok.rows.batch import Batch
from vtok.rows.prompts import CAPTION_INSTRUCTIONS
from vtok.rows.text import TextEncoder
from vtok.weights import Location
from vtok.weights.materialise import materialise, whole


class Size(NamedTuple):
    """Of the language model: LLaMA-3's proportions, but for the vocabulary."""

    width: int
    layers: int

    def architecture(self) -> dict[str, int]:
        heads = max(1, self.width // 64)
        return dict(
            hidden_size=self.width, intermediate_size=self.width * 7 // 2, num_hidden_layers=self.layers,
            num_attention_heads=heads, num_key_value_heads=max(1, heads // 4), head_dim=64,
            max_position_embeddings=32768,
        )  # fmt: skip


SMALL, MEDIUM, LARGE = Size(64, 3), Size(512, 8), Size(1024, 8)  # 0.3, 28 and 110 million parameters


def random_framework(folder: Path, size: Size) -> VTokFramework:
    """The tiny framework with a language model of ``size`` (and a decoder that reads rows of its width), fp32."""
    write_tiny_models(folder, CAPTION_INSTRUCTIONS)
    config = ModelConfig(
        tokeniser=VTokConfig(weights=f"{folder}/clip", token_dim=64, fps=6, motion_tokens_per_second=6),
        mllm=MLLMConfig(weights=f"{folder}/llava", max_motion_tokens=1024),
        decoder=DecoderConfig(weights=f"{folder}/hunyuan", fps=8, height=64, width=64),
    )

    def sized(location: Location, name: str) -> dict[str, Any]:
        stored = location.read_json(name)
        if stored.get("model_type") == LlavaNextConfig.model_type:
            stored["text_config"] |= size.architecture()
        if stored.get("_class_name") == HunyuanVideoTransformer3DModel.__name__:
            stored["text_embed_dim"] = size.width
        return stored

    framework = materialise(assemble(config, sized), [RandomPart()], whole())
    framework.text = TextEncoder.from_pretrained(config)
    return framework.train()


class RandomPart:
    """In the place of a :class:`vtok.weights.Part`: every parameter is drawn."""

    def all_tensors(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, "RandomTensor"]:
        return dict.fromkeys(shapes, RandomTensor())


class RandomTensor:
    def read_into(self, flat: Tensor, start: int) -> None:
        flat.normal_(0, 0.02)


def random_batch(framework: VTokFramework, clips: int, seconds: int = 5) -> Batch:
    """Clips of noise with captions of 5 to 120 words."""
    frames, length = framework.config.tokeniser.fps * seconds, framework.config.decoder.fps * seconds // 4 * 4 + 1
    words = " ".join(CAPTION_INSTRUCTIONS).split()
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(5, 121, (clips,), generator=generator).tolist()
    captions = [" ".join((words * 3)[:count]) for count in counts]

    def pixels(frames: int) -> Tensor:
        return torch.randint(0, 256, (clips, frames, 3, 64, 64), dtype=torch.uint8, generator=generator)

    return Batch(
        pixels(int(frames)), [int(frames)] * clips, pixels(length), [length] * clips,
        [framework.text.sample(caption, None, None, 0) for caption in captions],
        *[list(range(clips))] * 2, keys=[str(clip) for clip in range(clips)],
    )  # fmt: skip
