"""VTok in a notebook: answers about videos of any size, and videos from prompts.

>>> pipeline = VTokPipeline.from_pretrained("exported")
>>> pipeline.understand(frames, "What happens?", fps=24)        # frames (T, 3, H, W) uint8
>>> video = pipeline.generate("A dog runs.", seconds=5)         # (120, 3, 320, 576) uint8
"""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vtok.assembly.pretrained import from_pretrained, save_pretrained
from vtok.config import require
from vtok.crops import as_seen
from vtok.framework import VTokFramework
from vtok.generation import generate
from vtok.sampling import Sampling
from vtok.understanding import understand
from vtok.weights.materialise import whole
from vtok.weights.precision import cast_parameters


class VTokPipeline:
    """A framework on one device, in one precision.

    Args:
        framework: From :func:`vtok.assembly.build.build_framework` or
            :func:`vtok.assembly.pretrained.from_pretrained`.
        device: Where it runs. By default the GPU if there is one, else the CPU.
        dtype: Dtype of the weights. By default bf16 on a GPU and fp32 on a CPU.
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
        """Loads a folder that :meth:`save_pretrained` or ``pipelines/export.py`` wrote.

        Args:
            folder: The folder.
            device, dtype: As in :class:`VTokPipeline`.

        Raises:
            ConfigError: It cannot be opened.
        """
        device, dtype = chosen(device, dtype)
        return cls(from_pretrained(folder, whole(dtype, device)), device, dtype)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the model as a folder, which transformers opens too (see :mod:`vtok.assembly.pretrained`).

        Raises:
            ConfigError: The folder is not empty, or the backbone has random weights.
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
        """Answers a question about a video.

        Args:
            frames: (T, 3, H, W), ``uint8``, of any size. The model sees what it sees in training: the centre square of
                the part that the decoder draws.
            question: The question.
            fps: Frames per second of ``frames``. The configuration's if omitted.
            max_new_tokens: Longest answer.
            key_frame_idx: An index or ``detect``. The configuration's if omitted.
            key_frame_every: Seconds between key frames in a long video.
        """
        require(frames.dtype == torch.uint8 and frames.ndim == 4, "frames should be a uint8 tensor (T, 3, H, W)")
        frames = as_seen(self.framework, frames.to(self.device))
        return understand(self.framework, frames, question, max_new_tokens, fps, key_frame_idx, key_frame_every)

    def generate(
        self,
        prompt: str,
        seconds: float = 5.0,
        fps: float | None = None,
        steps: int = 50,
        temperature: float = 1.0,
        seed: int = 0,
        top_components: int | None = None,
        guidance: float = 1.0,
        candidates: int = 1,
        best_of: int = 1,
    ) -> Tensor:
        """Makes a ``uint8`` video (``round(seconds * fps)``, 3, height, width) from a prompt, on the CPU.

        Args:
            prompt: The prompt.
            seconds: Length of the video.
            fps: Frames per second. The decoder's own if omitted.
            steps: Denoising steps.
            seed: The same seed gives the same video.
            temperature, top_components, guidance, candidates, best_of: How the video is sampled
                (:class:`vtok.sampling.Sampling`).
        """
        generator = torch.Generator().manual_seed(seed)
        sampling = Sampling(temperature, top_components, guidance, candidates, best_of)
        return generate(self.framework, prompt, seconds, fps, steps, sampling, generator).cpu()


def chosen(device: str | torch.device | None, dtype: torch.dtype | None) -> tuple[torch.device, torch.dtype]:
    """Fills in defaults: the GPU with bf16 if there is one, else the CPU with fp32."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return device, dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
