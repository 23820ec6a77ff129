"""An arm's model: the shipped VTok with another tokeniser. Language model and decoder start as they are shipped."""

import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from data_tools.draws import keyed_seed
from pipelines.engine import distributed
from pipelines.engine.calibration import Moments
from pipelines.shapes_study.config import ArmConfig, merged
from pipelines.shapes_study.matched import matched_hidden_dim
from pipelines.shapes_study.stored_grids import StoredGrids
from pipelines.shapes_study.strategies.config import StrategiesConfig
from vtok.assembly.build import build_framework
from vtok.assembly.pretrained import CONFIG, read_config
from vtok.config import ModelConfig, VTokConfig
from vtok.framework import VTokFramework
from vtok.tokeniser import Tokeniser, VisualFeatures
from vtok.weights.shipped import PREFIX, SHIPPED

ENCODER, LANGUAGE = "shapes/clip", "shapes/llava-next"
NAMES_CODEC = {"omnitokenizer": "weights", "video-lavit": "codec"}  # the tokeniser's setting, by strategy
STARTED_FROM = (ENCODER, LANGUAGE, "shapes/hunyuan-video")
BATCH = 64


@cache
def shipped_config() -> ModelConfig:
    """Returns the configuration of the shipped VTok."""
    return read_config(SHIPPED / "vtok" / CONFIG)


@cache
def shipped_digest() -> str:
    """Returns a hash of the shipped files that arms start from, so that runs of different models are never mixed.

    Of VTok itself an arm takes the configuration alone.
    """
    digest = hashlib.sha256()
    files = [path for weights in STARTED_FROM for path in (SHIPPED / weights.removeprefix(PREFIX)).rglob("*.*")]
    for path in sorted([*files, SHIPPED / "vtok" / CONFIG]):
        if path.suffix in (".safetensors", ".json"):
            digest.update(path.relative_to(SHIPPED).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def shipped_framework() -> VTokFramework:
    """Builds the shipped models without visual tokens and without joint training, at evaluation, on the device."""
    tokeniser = VTokConfig(strategy="none", weights=ENCODER)
    model = replace(shipped_config(), tokeniser=tokeniser, mllm=replace(shipped_config().mllm, weights=LANGUAGE))
    return build_framework(model, without={"feature_extractor"}).eval().to(distributed.device())


def model_of(config: StrategiesConfig, arm: ArmConfig, codec: Path | None = None) -> ModelConfig:
    """Returns the configuration of an arm's model. ``codec`` is the folder of its strategy's codec, if it has one."""
    shipped = shipped_config()
    width = shipped.tokeniser.token_dim
    tokeniser = {"weights": ENCODER, "token_dim": width, "fps": config.world.fps}
    tokeniser |= merged(config.tokeniser, arm.tokeniser)
    if codec:
        tokeniser[NAMES_CODEC[tokeniser["strategy"]]] = str(codec)
    if arm.g_phi_of_grid:
        tokeniser["motion_hidden_dim"] = matched_hidden_dim(width, tokeniser.get("residual_grid", 1), arm.g_phi_of_grid)
    return replace(
        shipped,
        tokeniser=VTokConfig(**tokeniser),
        mllm=replace(shipped.mllm, weights=LANGUAGE, max_motion_tokens=64),
    )


def framework_of(config: StrategiesConfig, arm: ArmConfig, seed: int, codec: Path | None = None) -> VTokFramework:
    """Builds an arm's framework on the device. It takes stored features for frames, and holds no encoder.

    New weights are drawn part by part. So parts of the same shape start with the same weights in all arms.
    """
    framework = build_framework(model_of(config, arm, codec), without={"feature_extractor"})
    framework.tokeniser.feature_extractor = StoredGrids(framework.tokeniser.feature_extractor.width)
    for name, part in new_parts(framework).items():
        torch.manual_seed(keyed_seed(seed, 0, f"weights/{name}"))
        for module in part.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
    return framework.to(distributed.device())


def new_parts(framework: VTokFramework) -> dict[str, nn.Module]:
    """Returns the parts that no shipped model has, by name. P, which starts at zero, is not among them."""
    encoders = {name: part for name, part in framework.tokeniser.named_children() if name.endswith("_encoder")}
    return encoders | {f"visual_head.{kind}": head for kind, head in framework.visual_head.items()}


@torch.no_grad()
def features_of(tokeniser: Tokeniser, grids: Tensor, device: torch.device) -> VisualFeatures:
    """Pools the stored features (n, T, h, w, d_v) of clips as a strategy does. Returns fp16 on the device."""
    if not tokeniser.feature_dims:
        nothing = torch.zeros(len(grids), 0, 0, device=device)
        return VisualFeatures(nothing, nothing, [0] * len(grids))
    batches = [tokeniser.features(batch.to(device)) for batch in grids.split(BATCH)]
    spatial, motion = (torch.cat([getattr(own, kind).half() for own in batches]) for kind in ("spatial", "motion"))
    return VisualFeatures(spatial, motion, sum((own.motion_counts for own in batches), []))


def chosen(features: VisualFeatures, places: list[int]) -> VisualFeatures:
    """Returns the features of some of the clips."""
    counts = [features.motion_counts[place] for place in places]
    return VisualFeatures(features.spatial[places], features.motion[places], counts)


@torch.no_grad()
def measure(framework: VTokFramework, features: VisualFeatures) -> None:
    """Sets the mean and deviation of the frozen features from those of some clips."""
    for kind, scale in framework.tokeniser.feature_scale.items():
        values, counts = features.of(kind)
        moments = Moments(scale.mean.numel(), values.device)
        moments.add(torch.cat([own[:count] for own, count in zip(values, counts)]))
        scale.set(*moments.mean_and_std())


def tokens_of(config: StrategiesConfig, framework: VTokFramework) -> int:
    """Returns the visual tokens of a clip."""
    return sum(framework.tokeniser.counts(config.world.frames, config.world.fps))
