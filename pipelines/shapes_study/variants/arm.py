"""Trains one arm with one seed, and asks it about new scenes."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from data_tools.items import Item
from pipelines.engine.calibration import Moments
from pipelines.shapes_study.arms import matched_hidden_dim
from pipelines.shapes_study.config import ArmConfig, merged
from pipelines.shapes_study.fitting import STATE, fit, mean_of_last
from pipelines.shapes_study.questions import likeliest
from pipelines.shapes_study.variants.config import VariantsConfig
from pipelines.shapes_study.variants.world import ENCODER, GRIDS, StoredGrids, asked_clips, train_clips
from vtok.assembly.build import build_framework
from vtok.config import DecoderConfig, LossConfig, MLLMConfig, ModelConfig, VTokConfig
from vtok.framework import VTokFramework
from vtok.rows.batch import Batch
from vtok.tokeniser import Tokeniser, build_tokeniser

LANGUAGE = "shapes/llava-next"
DECODER = "shapes/hunyuan-video"  # gives the tokenizer of prompts; it does not run
MEASURED_ON = 512  # clips that the features' mean and deviation are measured on


def run(folder: Path, config: VariantsConfig, arm: ArmConfig, grids: Path, seed: int) -> dict[str, Any]:
    """Trains an arm in ``folder``, or resumes its training, and asks it.

    Args:
        folder: Folder of the stage; keeps the state of the training until it is done.
        config: The study.
        arm: The arm.
        grids: Folder with the features of the clips.
        seed: Seed of new weights and of the order of the clips.

    Returns:
        ``right``: 0 or 1 for each question, in order; ``last_loss``, in nats per answer; ``g_phi``: its parameters.
    """
    torch.manual_seed(seed)
    framework = framework_of(config, arm)
    stored = load_file(grids / GRIDS)
    measure(framework.tokeniser, stored["train"][:MEASURED_ON])
    items = [clip.item for clip in train_clips(config.world, config.seed)]
    texts = [framework.text.sample(None, item.question, item.answer, number) for number, item in enumerate(items)]

    def loss(step: int) -> Tensor:
        draws = torch.Generator().manual_seed(seed * 1_000_003 + step)
        chosen = torch.randint(len(texts), (config.fit.batch_size,), generator=draws)
        features, size = framework.tokeniser.features(stored["train"][chosen]), len(chosen)
        nothing = [0] * size
        rows = [texts[number] for number in chosen]
        batch = Batch(features, [config.world.frames] * size, None, nothing, rows, nothing, nothing, [""] * size)
        return framework(batch)["loss"]

    losses = fit(trained_parts(framework), loss, config.fit, folder)
    asked = [clip.item for clip in asked_clips(config.world, config.seed)]
    right = answers(framework.eval(), asked, stored["asked"])
    (folder / STATE).unlink()  # nothing reads it again, and there are many runs
    g_phi = sum(p.numel() for p in framework.tokeniser.motion_encoder.parameters())
    return {"right": right, "last_loss": mean_of_last(losses), "g_phi": g_phi}


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
