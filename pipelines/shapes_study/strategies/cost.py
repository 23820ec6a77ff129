"""What an arm costs: visual tokens, and FLOPs of its training."""

from pathlib import Path
from typing import Any

from pipelines.config import DataConfig, RunConfig, TrainConfig
from pipelines.metering.flops import part_flops
from pipelines.metering.step import measure_step, meta_copy
from pipelines.metering.workload import typical_workload
from pipelines.shapes_study.config import ArmConfig
from pipelines.shapes_study.strategies.arm import ASKED, MADE, WHOLE, halves
from pipelines.shapes_study.strategies.config import StrategiesConfig
from pipelines.shapes_study.strategies.model import framework_of, tokens_of
from pipelines.shapes_study.strategies.world import train_clips
from vtok.framework import VTokFramework

ONCE = ("feature_extractor", "motion_codec", "autoencoder", "text_encoder")  # run once for all seeds: they do not count


def cost_of(config: StrategiesConfig, arm: ArmConfig, codec: Path | None = None) -> dict[str, Any]:
    """Returns the visual tokens of a clip, the training FLOPs of a run, and the parameters of ``g_phi``.

    FLOPs are counted on the real modules without data (:mod:`pipelines.metering`), for captions of mean length. Those
    of sampling are not among them.
    """
    framework = framework_of(config, arm, 0, codec)
    prompts = [clip.item.prompt for clip in train_clips(config.world, config.seed)[:200]]
    caption = round(sum(len(framework.text.answer(prompt)) - 1 for prompt in prompts) / len(prompts))
    g_phi = getattr(framework.tokeniser, "motion_encoder", None)
    first, second = (halves(fit.batch_size) for fit in (config.fit, config.own.fit))
    step = flops_of(config, framework, caption, [WHOLE] * first[0] + [ASKED] * first[1])
    own_step = flops_of(config, framework, caption, [WHOLE] * second[0] + [MADE] * second[1])
    return {
        "tokens": tokens_of(config, framework),
        "flops": step * config.fit.steps + own_step * config.own.fit.steps,
        "g_phi": sum(p.numel() for p in g_phi.parameters()) if g_phi else 0,
    }


def flops_of(config: StrategiesConfig, framework: VTokFramework, caption: int, losses: list[list[str]]) -> float:
    """Returns the FLOPs of forward and backward of a batch.

    Args:
        config: The study.
        framework: The arm.
        caption: Tokens of a caption.
        losses: The losses that each sample counts in.
    """
    run = RunConfig(TrainConfig(max_steps=1), data=DataConfig(seconds=config.world.seconds), model=framework.config)
    copy = meta_copy(framework.config, run.train.precision)
    load = typical_workload(run, copy, len(losses), caption, framework.text)
    load.texts = [framework.text.counted(text, own) for text, own in zip(load.texts, losses)]
    parts = part_flops(measure_step(copy, load), samples=1, dec_every=1)
    return sum(part.model for name, part in parts.items() if name not in ONCE)
