"""The models of the paper's run, with random weights, as wide and as deep as a size says."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from pipelines.benchmarks.gpu.sizes import Changes, Sizes, merged
from pipelines.benchmarks.models import RandomPart
from pipelines.cli.config_files import PRESETS
from pipelines.cli.parsing import parse_run_arguments
from pipelines.config import RunConfig
from vtok.assembly.architectures import published_or_read
from vtok.config import Fp8
from vtok.mllm import MLLM, empty_mllm
from vtok.video_decoder import empty_decoder
from vtok.video_decoder.base import VideoDecoder
from vtok.weights import Location, ReadConfig
from vtok.weights.materialise import materialise, whole
from vtok.weights.precision import cast_parameters


def paper_run() -> RunConfig:
    return parse_run_arguments(["--config", str(PRESETS / "llava_next_8b_hunyuan.yaml")]).config


def reader(changes: Changes) -> ReadConfig:
    """Reads the published configurations with some of their values changed."""

    def read(location: Location, name: str) -> dict[str, Any]:
        stored = published_or_read(location, name)
        return merged(stored, changes.get(stored.get("_class_name") or stored.get("model_type"), {}))

    return read


def decoder(sizes: Sizes, double: int = 1, single: int = 1, fp8: Fp8 | None = None) -> VideoDecoder:
    """HunyuanVideo with so many blocks of each kind, frozen and checkpointed, on the meta device."""
    depth = {"HunyuanVideoTransformer3DModel": dict(num_layers=double, num_single_layers=single)}
    return empty_decoder(replace(paper_run().model.decoder, fp8=fp8), sizes.states, reader(merged(sizes.models, depth)))


def width(decoder: VideoDecoder) -> int:
    """Width of its tokens."""
    return decoder.transformer.config.num_attention_heads * decoder.transformer.config.attention_head_dim


def joint_tokens(decoder: VideoDecoder, sizes: Sizes) -> int:
    """Tokens of its joint attention: of the video, latent pixels in blocks of 2 x 2, and of the conditioning."""
    _, frames, height, width = decoder.latent_shape(*sizes.video)
    return frames * (height // 2) * (width // 2) + sizes.text_rows


def language_model(sizes: Sizes, layers: int) -> MLLM:
    """LLaMA-3-8B with ``layers`` of its layers and next to no vocabulary, checkpointed, on the meta device."""
    depth = {"llava_next": {"text_config": dict(num_hidden_layers=layers, vocab_size=2048), "image_token_index": 2047}}
    return empty_mllm(paper_run().model.mllm, reader(merged(sizes.models, depth))).mllm


def with_weights(module: nn.Module, device: torch.device) -> nn.Module:
    """The module in place, with random weights in bf16 and its buffers as they should be."""
    return materialise(module, [RandomPart()], whole(torch.bfloat16, device)).to(device)


def in_bf16(module: nn.Module) -> nn.Module:
    """A module on the meta device, its parameters in bf16: what a plan sees of it."""
    cast_parameters(module, torch.bfloat16)
    return module
