"""VTok in a notebook: videos of any size to answers, prompts to videos.

>>> pipeline = VTokPipeline.from_pretrained("exported")
>>> pipeline.understand(frames, "What happens?", fps=24)        # frames (T, 3, H, W) uint8
>>> video = pipeline.generate("A dog runs.", seconds=5)         # (120, 3, 320, 576) uint8
"""

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vtok.assembly.pretrained import from_pretrained, save_pretrained
from vtok.config import require
from vtok.framework import VTokFramework
from vtok.generation import generate
from vtok.understanding import understand
from vtok.weights.materialise import cast_parameters, whole


class VTokPipeline:
    """A framework on one device, in one precision.

    Args:
        framework: what :func:`vtok.assembly.build.build_framework` returns, or
            :func:`vtok.assembly.pretrained.from_pretrained`.
        device: the GPU if there is one.
        dtype: of the weights; bf16 on a GPU and fp32 on a CPU.
    """

    def __init__(
        self, framework: VTokFramework, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ):
        device, dtype = chosen(device, dtype)
        cast_parameters(framework, dtype)
        self.framework = framework.eval().to(device)
        self.device = device

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> "VTokPipeline":
        """From a folder that :meth:`save_pretrained` or ``pipelines/export.py`` wrote.

        Raises:
            ConfigError: it cannot be opened.
        """
        device, dtype = chosen(device, dtype)
        return cls(from_pretrained(folder, whole(dtype, device)), device, dtype)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model as a folder, which transformers opens too (see :mod:`vtok.assembly.pretrained`).

        Raises:
            ConfigError: the folder is not empty, or a part has no weights that can be named.
        """
        save_pretrained(self.framework, folder)

    def understand(
        self,
        frames: Tensor,
        question: str = "Describe this video.",
        fps: float | None = None,
        max_new_tokens: int = 128,
        key_frame_idx: int | Literal["detect"] | None = None,
        key_frame_every: float | None = None,
    ) -> str:
        """Answer a question about a video.

        Args:
            frames: (T, 3, H, W) ``uint8``, of any size: the centre square is shown to the model.
            fps: frames per second of ``frames``; the configuration's if omitted.
            key_frame_every: seconds between key frames in a long video.
        """
        require(frames.dtype == torch.uint8 and frames.ndim == 4, "frames should be a uint8 tensor (T, 3, H, W)")
        size = self.framework.tokeniser.feature_extractor.image_size
        frames = centre_square(frames.to(self.device), size)
        return understand(self.framework, frames, question, max_new_tokens, fps, key_frame_idx, key_frame_every)

    def generate(
        self,
        prompt: str,
        seconds: float = 5.0,
        fps: float | None = None,
        steps: int = 50,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> Tensor:
        """A video for a prompt: (``round(seconds * fps)``, 3, height, width) ``uint8``, on the CPU.

        Args:
            fps: the decoder's own if omitted.
            steps: denoising steps.
            temperature: of the visual tokens.
        """
        generator = torch.Generator().manual_seed(seed)
        return generate(self.framework, prompt, seconds, fps, steps, temperature, generator).cpu()


def chosen(device: str | torch.device | None, dtype: torch.dtype | None) -> tuple[torch.device, torch.dtype]:
    """The GPU if there is one, with bf16; else the CPU with fp32."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return device, dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)


def centre_square(frames: Tensor, size: int) -> Tensor:
    """CLIP's preprocessing of (T, 3, H, W) ``uint8`` frames: the shorter edge to ``size``, then the middle of that."""
    height, width = (edge * size // min(frames.shape[-2:]) for edge in frames.shape[-2:])
    resized = F.interpolate(frames, (height, width), mode="bicubic", antialias=True, align_corners=False)
    top, left = (height - size) // 2, (width - size) // 2
    return resized[..., top : top + size, left : left + size]
