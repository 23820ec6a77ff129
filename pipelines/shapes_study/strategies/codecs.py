"""The codecs of Table 1's other arms: trained on the study's clips, then frozen, as each arm's own encoder is.

omnitokenizer    an OmniTokenizer, on frames
video-lavit      a motion codec, on the motion vectors between frames
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_tools.draws import keyed_seed
from pipelines.codec_training.recipes import RECIPES
from pipelines.engine import distributed
from pipelines.shapes_study.config import ArmConfig
from pipelines.shapes_study.fitting import fit, mean_of_last
from pipelines.shapes_study.strategies.config import StrategiesConfig
from pipelines.shapes_study.strategies.model import model_of
from pipelines.shapes_study.strategies.stored import save_features
from pipelines.shapes_study.strategies.world import TOKENS, Clip, rendered
from pipelines.vidtok_training.config import VideoDataConfig
from vtok.tokeniser import VisualFeatures, build_tokeniser
from vtok.weights.own_folder import save_weights

CODEC = "codec"  # its folder in that of the stage
RECIPE_OF = {"omnitokenizer": "omnitokenizer", "video-lavit": "motion_codec"}  # by strategy
BATCH = 16


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
    strategy, size = arm.tokeniser["strategy"], config.world.size
    own, device = config.codecs[strategy], distributed.device()
    data = VideoDataConfig(frames=own.frames, fps=arm.tokeniser["fps"], height=size, width=size)
    recipe = RECIPES[RECIPE_OF[strategy]](own.model, data)
    torch.manual_seed(keyed_seed(config.seed, 0, f"codec/{strategy}"))
    model = recipe.build().train().to(device)

    def loss(step: int) -> Tensor:
        draws = torch.Generator().manual_seed(keyed_seed(config.seed, step, f"codec/{strategy}"))
        places = torch.randint(len(clips), (own.fit.batch_size,), generator=draws).tolist()
        frames = rendered([clips[place] for place in places], data.frames, data.fps, size)
        return model.training_losses(torch.stack([recipe.read(clip) for clip in frames]).to(device))["loss"]

    losses, place = fit(model, loss, own.fit, folder), folder / CODEC
    place.mkdir(exist_ok=True)
    save_weights(model.cpu(), place / recipe.weights)
    recipe.describe(place)
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
        frames = rendered(clips[first : first + BATCH], world.frames, world.fps, world.size)
        found.append(tokeniser.features(frames.to(device), fps=world.fps))
    spatial, motion = (torch.cat([getattr(own, kind) for own in found]) for kind in ("spatial", "motion"))
    save_features(VisualFeatures(spatial, motion, [motion.shape[1]] * len(motion)), folder / TOKENS)
    return {}
