"""Best of N: of several videos of a prompt, keeps the one that the model itself would describe by the prompt.

One model makes videos and understands them, so it can look at what it has made. The paper has no such step.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vtok.config import ConfigError
from vtok.crops import as_seen
from vtok.frame_rate import at_rate
from vtok.framework import VTokFramework
from vtok.rows.prompts import CAPTION_INSTRUCTIONS
from vtok.understanding import answer_losses, video_embeddings


def best_of(
    framework: VTokFramework, count: int, prompts: list[str], seconds: float, make: Callable[[int], Tensor]
) -> Tensor:
    """Makes ``count`` videos of each prompt and keeps the best. Under ZeRO-3 all ranks call this together.

    Args:
        framework: The model.
        count: Videos of each prompt. One is not looked at.
        prompts: The B prompts.
        seconds: Length of a video.
        make: Makes the n-th video of each prompt: (B, F, 3, H, W), ``uint8``, at the decoder's frames per second.

    Returns:
        (B, F, 3, H, W) ``uint8``.

    Raises:
        ConfigError: The model makes no visual tokens of videos, so it cannot look at them.
    """
    if count == 1:
        return make(0)
    config = framework.config
    if config.tokeniser.strategy == "none":
        raise ConfigError("best_of needs a model that sees videos; with tokeniser.strategy none leave it at 1")
    made = [make(number) for number in range(count)]
    rate = config.tokeniser.fps
    seen = [at_rate(videos, config.decoder.fps, rate, seconds + 1 / rate) for videos in made]  # both ends are frames
    losses = [[description_loss(framework, *pair) for pair in zip(videos, prompts)] for videos in seen]
    best = torch.tensor(losses).argmin(0)
    return torch.stack([made[number][row] for row, number in enumerate(best.tolist())])


@torch.no_grad()
def description_loss(framework: VTokFramework, frames: Tensor, prompt: str) -> float:
    """Computes -log p of a prompt as the description of a video.

    Args:
        framework: The model.
        frames: (F, 3, H, W), ``uint8``, at the tokeniser's frames per second.
        prompt: The prompt.
    """
    visual = video_embeddings(framework, as_seen(framework, frames.to(framework.mllm.device)))
    (losses,) = answer_losses(framework, visual, [len(frames)], CAPTION_INSTRUCTIONS[0], [prompt])
    return losses.sum().item()
