"""Trains one arm with one seed on all three losses, through the project's own framework."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from data_tools.draws import keyed_seed
from pipelines.shapes_study.config import ArmConfig
from pipelines.shapes_study.fitting import fit, mean_of_last
from pipelines.shapes_study.strategies.config import StrategiesConfig
from pipelines.shapes_study.strategies.model import chosen, features_of, framework_of, measure
from pipelines.shapes_study.strategies.world import Encoded, decoder_count
from vtok.framework import LOSSES, VTokFramework
from vtok.rows.batch import Batch
from vtok.rows.text import RowText
from vtok.video_decoder import Posterior

MEASURED_ON = 512  # clips that the features' mean and deviation are measured on
DESCRIBED = 4  # of so many clips one has no question; the model describes it


class Trained(NamedTuple):
    """An arm after its training with one seed.

    Attributes:
        framework: Its model.
        losses: The weighted loss of each step.
    """

    framework: VTokFramework
    losses: list[float]

    @property
    def figures(self) -> dict[str, Any]:
        """``last_loss``: the mean loss of the last tenth of the steps."""
        return {"last_loss": mean_of_last(self.losses)}


def train(folder: Path, config: StrategiesConfig, arm: ArmConfig, world: Encoded, seed: int) -> Trained:
    """Trains an arm, or resumes its training; if it is done, loads the weights.

    The seed gives new weights, the order of the clips, and the noise of the losses. All of these are the same for all
    arms.

    Args:
        folder: Keeps the state.
        config: The study.
        arm: The arm.
        world: The clips to train on.
        seed: The seed.
    """
    framework = framework_of(config, arm, seed).train()
    device = framework.mllm.device
    features = features_of(framework.tokeniser, world.stored["grids"], device)
    measure(framework, chosen(features, list(range(min(MEASURED_ON, len(world.clips))))))
    latents, pooled = (world.stored[name].to(device) for name in ("latents", "pooled"))
    texts = texts_of(framework, world)
    frames, video = config.world.frames, decoder_count(framework.config.decoder, config.world.seconds)

    def loss(step: int) -> Tensor:
        draws = torch.Generator().manual_seed(keyed_seed(seed, step, "clips"))
        places = torch.randint(len(texts), (config.fit.batch_size,), generator=draws).tolist()
        size = len(places)
        mean = latents[places].float()
        batch = Batch(
            frames=chosen(features, places),
            frame_counts=[frames] * size,
            video=Posterior(mean, torch.zeros_like(mean)),
            video_counts=[video] * size,
            texts=[texts[place] for place in places],
            decoder_seeds=[keyed_seed(seed, step * size + row, "decoder") for row in range(size)],
            head_seeds=[keyed_seed(seed, step * size + row, "head") for row in range(size)],
            keys=[""] * size,
            captions=list(pooled[places]),
        )
        return framework(batch, with_decoder=step % framework.config.loss.dec_every == 0)[LOSSES[0]]

    return Trained(framework, fit(trained_parts(framework), loss, config.fit, folder))


def texts_of(framework: VTokFramework, world: Encoded) -> list[RowText]:
    """Tokenises the clips' texts: the short caption of each, and the question of three in four."""
    texts = []
    for number, clip in enumerate(world.clips):
        asked = (clip.item.question, clip.item.answer) if number % DESCRIBED else (None, None)
        texts.append(framework.text.sample(clip.item.prompt, *asked, number))
    return texts


def trained_parts(framework: VTokFramework) -> nn.Module:
    """Returns the parts that train. The frozen ones, and those that no loss reaches, are not among them."""
    tokeniser = [part for name, part in framework.tokeniser.named_children() if name.endswith("_encoder")]
    return nn.ModuleList([framework.mllm, framework.projection, framework.visual_head, *tokeniser])
