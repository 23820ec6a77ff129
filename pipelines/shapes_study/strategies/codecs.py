"""The codecs of Table 1's other arms: trained on the study's clips, then frozen, as each arm's own encoder is.

omnitokenizer    an OmniTokenizer, on frames
video-lavit      a motion codec, on the motion vectors between frames
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from data_tools.draws import keyed_seed
from pipelines.engine import distributed
from pipelines.shapes_study.config import ArmConfig
from pipelines.shapes_study.fitting import fit, mean_of_last
from pipelines.shapes_study.strategies.config import StrategiesConfig
from pipelines.shapes_study.strategies.model import model_of
from pipelines.shapes_study.strategies.world import TOKENS, Clip, frames_of
from vtok.motion_codec import MotionCodec, codec_config, motion_vectors
from vtok.motion_codec import folder as motion_codec_folder
from vtok.omnitokenizer import OmniTokenizer, checkpoint, omni_config
from vtok.omnitokenizer.model import initialise, to_model, whole_patches
from vtok.tokeniser import build_tokeniser

CODEC = "codec"  # its folder in that of the stage
BATCH = 16


class Training(NamedTuple):
    """A codec to train.

    Attributes:
        model: The codec, with random weights.
        read: Turns a clip's frames (T, 3, H, W) ``uint8`` into its input.
        save: Writes its folder.
    """

    model: nn.Module
    read: Callable[[Tensor], Tensor]
    save: Callable[[Any, Path], None]


def omnitokenizer(sizes: dict[str, Any]) -> Training:
    """Builds an OmniTokenizer. As in the tokeniser, copies of the last frame fill up the last patch."""
    model = OmniTokenizer(omni_config(sizes))
    initialise(model)

    def read(frames: Tensor) -> Tensor:
        missing = whole_patches(len(frames), model.config.temporal_patch_size) - len(frames)
        return to_model(torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)]))

    return Training(model, read, checkpoint.save_folder)


def motion_codec(sizes: dict[str, Any]) -> Training:
    """Builds a motion codec."""
    config = codec_config(sizes)
    read = partial(motion_vectors, height=config.height, width=config.width)
    return Training(MotionCodec(config), read, motion_codec_folder.save_folder)


CODECS: dict[str, Callable[[dict[str, Any]], Training]] = {"omnitokenizer": omnitokenizer, "video-lavit": motion_codec}


def train(folder: Path, config: StrategiesConfig, arm: ArmConfig, clips: list[Clip]) -> dict[str, float]:
    """Trains the codec of an arm's strategy, or resumes its training, and writes it to ``folder/CODEC``.

    Args:
        folder: Keeps the state.
        config: The study.
        arm: The arm. Its tokeniser's frame rate is the codec's.
        clips: The clips to train on.

    Returns:
        ``last_loss``: the mean loss of the last tenth of the steps.
    """
    own, strategy = config.codecs[arm.tokeniser["strategy"]], arm.tokeniser["strategy"]
    torch.manual_seed(keyed_seed(config.seed, 0, f"codec/{strategy}"))
    model, read, save = CODECS[strategy](own.model)
    model.to(distributed.device())
    fps = arm.tokeniser["fps"]
    count = round(config.world.seconds * fps) + 1

    def loss(step: int) -> Tensor:
        draws = torch.Generator().manual_seed(keyed_seed(config.seed, step, f"codec/{strategy}"))
        places = torch.randint(len(clips), (own.fit.batch_size,), generator=draws).tolist()
        frames = shown([clips[place] for place in places], count, fps, config.world.size)
        return model.training_losses(torch.stack([read(clip) for clip in frames]).to(distributed.device()))["loss"]

    losses = fit(model.train(), loss, own.fit, folder)
    save(model.cpu(), folder / CODEC)
    return {"last_loss": mean_of_last(losses)}


def encode(folder: Path, config: StrategiesConfig, arm: ArmConfig, codec: Path, clips: list[Clip]) -> dict[str, Any]:
    """Writes the features that the arm's tokeniser makes of clips' frames to ``folder/TOKENS``. Returns no figures.

    Args:
        folder: Folder of the stage.
        config: The study.
        arm: The arm.
        codec: Folder of its codec.
        clips: The clips.
    """
    device, world = distributed.device(), config.world
    tokeniser = build_tokeniser(model_of(config, arm, codec).tokeniser).eval().to(device)
    found = []
    for first in range(0, len(clips), BATCH):
        frames = shown(clips[first : first + BATCH], world.frames, world.fps, world.size)
        found.append(tokeniser.features(frames.to(device), fps=world.fps))
    stored = {kind: torch.cat([getattr(own, kind) for own in found]).half().cpu() for kind in ("spatial", "motion")}
    save_file(stored, folder / TOKENS)
    return {}


def shown(clips: list[Clip], count: int, fps: float, size: int) -> Tensor:
    """Renders the frames (B, T, 3, H, W) ``uint8`` of clips."""
    frames = np.stack([frames_of(clip.scene, count, fps, size) for clip in clips])
    return torch.from_numpy(frames).permute(0, 1, 4, 2, 3)
