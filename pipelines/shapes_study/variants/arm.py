"""Trains one arm with one seed, and asks it about new scenes."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from data_tools.items import Item
from pipelines.engine.calibration import Moments
from pipelines.shapes_study.config import ArmConfig, merged
from pipelines.shapes_study.fitting import fit, mean_of_last
from pipelines.shapes_study.matched import matched_hidden_dim
from pipelines.shapes_study.questions import likeliest
from pipelines.shapes_study.stored_grids import StoredGrids
from pipelines.shapes_study.variants.config import VariantsConfig
from pipelines.shapes_study.variants.world import ENCODER, asked_clips, train_clips
from vtok.assembly.build import build_framework
from vtok.config import DecoderConfig, LossConfig, MLLMConfig, ModelConfig, VTokConfig
from vtok.framework import VTokFramework
from vtok.rows.batch import Batch
from vtok.tokeniser import Tokeniser, build_tokeniser

LANGUAGE = "shapes/llava-next"
DECODER = "shapes/hunyuan-video"  # gives the tokenizer of prompts; it does not run
MEASURED_ON = 512  # clips that the features' mean and deviation are measured on


class Trained(NamedTuple):
    """An arm after its training with one seed.

    Attributes:
        framework: Its model.
        losses: The loss of each step, in nats per answer token.
    """

    framework: VTokFramework
    losses: list[float]

    @property
    def figures(self) -> dict[str, Any]:
        """``last_loss``: the mean loss of the last tenth of the steps; ``g_phi``: its parameters."""
        size = sum(p.numel() for p in self.framework.tokeniser.motion_encoder.parameters())
        return {"last_loss": mean_of_last(self.losses), "g_phi": size}


def train(folder: Path, config: VariantsConfig, arm: ArmConfig, grids: Tensor, seed: int) -> Trained:
    """Trains an arm, or resumes its training; if it is done, loads the weights.

    Args:
        folder: Keeps the state.
        config: The study.
        arm: The arm.
        grids: The stored features of the clips to train on.
        seed: Seed of new weights and of the order of the clips.
    """
    torch.manual_seed(seed)
    framework = framework_of(config, arm)
    measure(framework.tokeniser, grids[:MEASURED_ON])
    items = [clip.item for clip in train_clips(config.world, config.seed)]
    texts = [framework.text.sample(None, item.question, item.answer, number) for number, item in enumerate(items)]

    def loss(step: int) -> Tensor:
        draws = torch.Generator().manual_seed(seed * 1_000_003 + step)
        chosen = torch.randint(len(texts), (config.fit.batch_size,), generator=draws)
        features, size = framework.tokeniser.features(grids[chosen]), len(chosen)
        nothing = [0] * size
        rows = [texts[number] for number in chosen]
        batch = Batch(features, [config.world.frames] * size, None, nothing, rows, nothing, nothing, [""] * size)
        return framework(batch)["loss"]

    return Trained(framework, fit(trained_parts(framework), loss, config.fit, folder))


def ask(framework: VTokFramework, config: VariantsConfig, grids: Tensor) -> dict[str, Any]:
    """Asks a trained arm about new scenes, whose stored features are ``grids``.

    Returns:
        ``right``: 0 or 1 for each question, in order.
    """
    items = [clip.item for clip in asked_clips(config.world, config.seed)]
    return {"right": answers(framework.eval(), items, grids)}


def model_of(config: VariantsConfig, arm: ArmConfig) -> ModelConfig:
    """Returns the configuration of an arm's model: understanding only."""
    settings = {"weights": ENCODER, "fps": config.world.fps, "motion_tokens_per_second": config.world.fps}
    tokeniser = settings | merged(config.tokeniser, arm.tokeniser)
    if arm.g_phi_of_grid:
        tokeniser["motion_hidden_dim"] = matched_hidden_dim(
            tokeniser["token_dim"], tokeniser.get("residual_grid", 1), arm.g_phi_of_grid,
            tokeniser.get("residual_pooling", "flatten"),
        )  # fmt: skip
    return ModelConfig(
        tokeniser=VTokConfig(**tokeniser),
        mllm=MLLMConfig(weights=LANGUAGE, max_motion_tokens=64),
        decoder=DecoderConfig(weights=DECODER, height=32, width=32, max_prompt_tokens=64),
        loss=LossConfig(vis_lm=0, dec=0),
    )


def framework_of(config: VariantsConfig, arm: ArmConfig) -> VTokFramework:
    """Builds an arm's framework. It takes the clips' stored features for frames, and holds no encoder."""
    unused = {"feature_extractor", "diffusion_transformer", "autoencoder"}
    framework = build_framework(model_of(config, arm), without=unused).train()
    framework.tokeniser.feature_extractor = StoredGrids(framework.tokeniser.feature_extractor.width)
    return framework


def trained_parts(framework: VTokFramework) -> nn.Module:
    """Returns the parts that train: those that the answers' loss reaches."""
    return nn.ModuleList([framework.mllm, framework.projection, framework.tokeniser.motion_encoder])


@torch.no_grad()
def measure(tokeniser: Tokeniser, grids: Tensor) -> None:
    """Sets the mean and deviation of the features that ``g_phi`` reads, from clips (n, T, h, w, d_v)."""
    scale = tokeniser.feature_scale["motion"]
    moments = Moments(scale.mean.numel(), grids.device)
    moments.add(tokeniser.features(grids).motion.flatten(0, 1))
    scale.set(*moments.mean_and_std())


@torch.no_grad()
def answers(framework: VTokFramework, items: list[Item], grids: Tensor) -> list[int]:
    """Asks about clips (n, T, h, w, d_v). Returns 1 for each question whose likeliest option is right, else 0."""
    right = []
    for item, clip in zip(items, grids, strict=True):
        visual = framework.embedded(framework.tokeniser.features(clip[None]))
        right.append(int(likeliest(framework, visual, len(clip), item) == item.answer))
    return right


@torch.no_grad()
def tokens(config: VariantsConfig, arm: ArmConfig, grids: Tensor) -> list[int]:
    """Returns how many visual tokens each of n clips (n, T, h, w, d_v) has in an arm."""
    tokeniser = build_tokeniser(model_of(config, arm).tokeniser, StoredGrids(grids.shape[-1]))
    return tokeniser.features(grids).token_counts
