"""Tiny Wans for tests, and diffusers' own pipeline for them."""

import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanPipeline
from safetensors.torch import load_file, save_file

from vtok.framework import VTokFramework

HEEDING = (".attn2.to_v.", ".attn2.to_out.", ".text_embedder.")


def write_heeding_models(models: Path, folder: Path) -> Path:
    """Copies tiny models, with transformers that heed what they are told: as drawn, it changes a video by some 1e-6."""
    shutil.copytree(models, folder)
    for file in folder.glob("wan*/transformer*/*.safetensors"):
        weights = load_file(file)
        for name, value in weights.items():
            value *= 20 if any(part in name for part in HEEDING) and name.endswith("weight") else 1
        save_file(weights, file, {"format": "pt"})
    return folder


def own_pipeline(framework: VTokFramework, dtype: torch.dtype = torch.float32) -> WanPipeline:
    """Diffusers' own, from the same folder, as its model cards load it: the autoencoder in fp32."""
    folder = framework.config.decoder.weights
    vae = AutoencoderKLWan.from_pretrained(folder, subfolder="vae", torch_dtype=torch.float32)
    pipeline = WanPipeline.from_pretrained(folder, vae=vae, torch_dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
