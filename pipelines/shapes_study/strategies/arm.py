"""Trains one arm with one seed on all three losses, through the project's own framework."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from data_tools.draws import keyed_seed
from pipelines.shapes_study.config import ArmConfig
from pipelines.shapes_study.fitting import fit, mean_of_last
from pipelines.shapes_study.strategies.config import StrategiesConfig
from pipelines.shapes_study.strategies.model import chosen, framework_of, measure
from pipelines.shapes_study.strategies.own_tokens import own_features
from pipelines.shapes_study.strategies.world import Encoded, decoder_count
from vtok.framework import LOSSES, VTokFramework
from vtok.rows.batch import Batch
from vtok.rows.text import RowText
from vtok.tokeniser import VisualFeatures
from vtok.video_decoder import Posterior

MEASURED_ON = 512  # clips that the features' mean and deviation are measured on
OWN = "own"  # folder of the second part of a training
DESCRIBED = 4  # of so many clips one has no question; the model describes it
WHOLE, ASKED, MADE = ["under", "vis_lm", "dec"], ["under"], ["dec"]  # the losses that a sample may count in


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


class Examples(NamedTuple):
    """Samples to train on.

    Attributes:
        features: The features of their visual tokens.
        texts: Their rows.
        latents: The decoder's latents (n, C, k + 1, h', w') fp16.
        pooled: The decoder's text vectors (n, d').
    """

    features: VisualFeatures
    texts: list[RowText]
    latents: Tensor
    pooled: Tensor

    def chosen(self, places: list[int]) -> "Examples":
        """Returns some of them."""
        texts = [self.texts[place] for place in places]
        return Examples(chosen(self.features, places), texts, self.latents[places], self.pooled[places])

    def joined(self, others: "Examples") -> "Examples":
        """Returns these and others."""
        (ours, theirs), texts = (self.features, others.features), self.texts + others.texts
        parts = (torch.cat(pair) for pair in ((ours.spatial, theirs.spatial), (ours.motion, theirs.motion)))
        features = VisualFeatures(*parts, ours.motion_counts + theirs.motion_counts)
        latents, pooled = torch.cat([self.latents, others.latents]), torch.cat([self.pooled, others.pooled])
        return Examples(features, texts, latents, pooled)


def train(folder: Path, config: StrategiesConfig, arm: ArmConfig, world: Encoded, seed: int) -> Trained:
    """Trains an arm, or resumes its training; if it is done, loads the weights.

    First half of the samples train all losses, the others L_under alone: a row to generate costs most of a sample, and
    understanding needs more samples. Then half of the samples have tokens that the arm samples itself, and train L_dec
    alone (:mod:`pipelines.shapes_study.strategies.own_tokens`). The seed gives new weights, the order of the clips, and
    all noise. These are the same for all arms.

    Args:
        folder: Keeps the state.
        config: The study.
        arm: The arm.
        world: The clips to train on.
        seed: The seed.
    """
    framework = framework_of(config, arm, seed, world.codec).train()
    device, parts = framework.mllm.device, trained_parts(framework)
    features = world.features(framework.tokeniser)
    measure(framework, chosen(features, list(range(min(MEASURED_ON, len(world.clips))))))
    latents, pooled = (world.stored[name].to(device) for name in ("latents", "pooled"))
    clips = Examples(features, texts_of(framework, world), latents, pooled)

    def loss(step: int) -> Tensor:
        samples = half_asked(framework, drawn(clips, config.fit.batch_size, seed, step))
        return loss_of(framework, config, samples, seed, step)

    losses = fit(parts, loss, config.fit, folder)
    own_folder, count = folder / OWN, config.own.clips
    own = Examples(
        own_features(own_folder, config, framework, world.clips[:count], seed),
        [framework.text.counted(text, MADE) for text in clips.texts[:count]],
        latents[:count],
        pooled[:count],
    )

    def own_loss(step: int) -> Tensor:
        step += config.fit.steps  # other clips and noise than before
        whole, made = halves(config.own.fit.batch_size)
        both = drawn(clips, whole, seed, step).joined(drawn(own, made, seed, step))
        return loss_of(framework, config, both, seed, step)

    return Trained(framework, losses + fit(parts, own_loss, config.own.fit, own_folder))


def drawn(examples: Examples, count: int, seed: int, step: int) -> Examples:
    """Draws the samples of a step."""
    draws = torch.Generator().manual_seed(keyed_seed(seed, step, "clips"))
    return examples.chosen(torch.randint(len(examples.texts), (count,), generator=draws).tolist())


def halves(size: int) -> tuple[int, int]:
    """Returns the numbers of samples in the two halves of a batch."""
    return size - size // 2, size // 2


def half_asked(framework: VTokFramework, examples: Examples) -> Examples:
    """Lets the second half of some samples train L_under alone."""
    whole = halves(len(examples.texts))[0]
    asked = [framework.text.counted(text, ASKED) for text in examples.texts[whole:]]
    return examples._replace(texts=examples.texts[:whole] + asked)


def loss_of(framework: VTokFramework, config: StrategiesConfig, examples: Examples, seed: int, step: int) -> Tensor:
    """Returns the weighted loss of a step."""
    size, mean = len(examples.texts), examples.latents.float()
    batch = Batch(
        frames=examples.features,
        frame_counts=[config.world.frames] * size,
        video=Posterior(mean, torch.zeros_like(mean)),
        video_counts=[decoder_count(framework.config.decoder, config.world.seconds)] * size,
        texts=examples.texts,
        decoder_seeds=[keyed_seed(seed, step, f"decoder/{row}") for row in range(size)],
        head_seeds=[keyed_seed(seed, step, f"head/{row}") for row in range(size)],
        keys=[""] * size,
        captions=list(examples.pooled),
    )
    return framework(batch)[LOSSES[0]]


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
