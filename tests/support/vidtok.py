"""Small VidToks with random weights, none of them zero, videos for them, and drawn weights of LPIPS."""

from pathlib import Path

import torch

from vtok.vidtok import VidTok, load_model
from vtok.vidtok.losses.perceptual import BLOCKS

# Name -> entries of the state dict, millions of parameters of encoder and decoder.
PUBLISHED = {
    "vidtok_kl_causal_488_4chn": (416, 69.26, 88.19),
    "vidtok_kl_causal_488_8chn": (416, 69.37, 88.25),
    "vidtok_kl_causal_488_16chn": (416, 69.59, 88.36),
    "vidtok_kl_causal_288_8chn": (410, 62.29, 86.48),
    "vidtok_kl_causal_444_4chn": (412, 69.11, 85.83),
    "vidtok_kl_causal_41616_4chn": (500, 89.52, 109.45),
    "vidtok_kl_noncausal_488_4chn": (416, 69.26, 88.19),
    "vidtok_kl_noncausal_488_16chn": (416, 69.59, 88.36),
    "vidtok_kl_noncausal_41616_4chn": (500, 89.52, 109.45),
    "vidtok_kl_noncausal_41616_16chn": (500, None, None),
    "vidtok_fsq_causal_488_4096": (416, None, None),
    "vidtok_fsq_causal_488_32768": (416, None, None),
    "vidtok_fsq_causal_488_262144": (416, None, None),
    "vidtok_fsq_causal_41616_262144": (500, None, None),
    "vidtok_fsq_noncausal_488_262144": (416, None, None),
    "vidtok_fsq_noncausal_41616_262144": (500, None, None),
    "vidtok_kl_causal_488_4chn_v1_1": (416, 69.26, 88.19),
    "vidtok_kl_causal_488_16chn_v1_1": (416, 69.59, 88.36),
    "vidtok_kl_causal_41616_16chn_v1_1": (500, None, None),
    "vidtok_kl_causal_288_8chn_v1_1": (410, 62.29, 86.48),
    "vidtok_fsq_causal_488_32768_v1_1": (416, None, None),
    "vidtok_fsq_causal_41616_262144_v1_1": (500, None, None),
    "vidtok_fsq_causal_888_32768_v1_1": (422, 69.66, 95.29),
}

# One of each time handling and compression.
DIFFERENT = [
    "vidtok_kl_causal_488_4chn", "vidtok_kl_causal_488_4chn_v1_1", "vidtok_kl_noncausal_488_4chn",
    "vidtok_kl_causal_288_8chn", "vidtok_kl_causal_288_8chn_v1_1", "vidtok_fsq_causal_888_32768_v1_1",
    "vidtok_kl_causal_444_4chn", "vidtok_kl_causal_41616_4chn", "vidtok_fsq_noncausal_41616_262144",
]  # fmt: skip


@torch.no_grad()
def small_model(name: str, ch: int = 16, **overrides) -> VidTok:
    """At evaluation. Layers that begin as zero are drawn too: else no block over time would do anything."""
    torch.manual_seed(0)
    model = load_model(name, ch=ch, **overrides).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            parameter.normal_(std=parameter[0].numel() ** -0.5)
        elif parameter.ndim == 1:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def random_video(frames: int, size: int = 32, batch: int = 1) -> torch.Tensor:
    """(batch, 3, frames, size, size) in [-1, 1]."""
    return torch.rand(batch, 3, frames, size, size, generator=torch.Generator().manual_seed(frames)) * 2 - 1


def lpips_files(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """``vgg.pth`` and ``linear.pth``: weights of the published files' names and shapes, drawn; returns them."""
    torch.manual_seed(0)
    vgg, linear, inputs = {}, {}, 3
    for depth, block in enumerate(BLOCKS):
        for number, width in block:
            vgg[f"features.{number}.weight"] = torch.randn(width, inputs, 3, 3) * (2 / (9 * inputs)) ** 0.5
            vgg[f"features.{number}.bias"] = 0.1 * torch.randn(width)
            inputs = width
        linear[f"lin{depth}.model.1.weight"] = torch.rand(1, inputs, 1, 1)
    vgg["classifier.0.weight"] = torch.zeros(1)
    torch.save(vgg, folder / "vgg.pth")
    torch.save(linear, folder / "linear.pth")
    return vgg, linear
