"""What an arm costs: visual tokens, and FLOPs of its training."""

from typing import Any

from pipelines.config import DataConfig, RunConfig, TrainConfig
from pipelines.metering.flops import sample_flops
from pipelines.shapes_study.config import ArmConfig
from pipelines.shapes_study.strategies.config import StrategiesConfig
from pipelines.shapes_study.strategies.model import framework_of, tokens_of
from pipelines.shapes_study.strategies.world import train_clips

ONCE = ("feature_extractor", "autoencoder", "text_encoder")  # run once for all arms and seeds, so they do not count


def cost_of(config: StrategiesConfig, arm: ArmConfig) -> dict[str, Any]:
    """Returns the visual tokens of a clip, the training FLOPs of a run, and the parameters of ``g_phi``.

    FLOPs are counted on the real modules without data (:mod:`pipelines.metering`), for a caption of mean length and all
    losses. Those of sampling are not among them.
    """
    framework = framework_of(config, arm, 0)
    prompts = [clip.item.prompt for clip in train_clips(config.world, config.seed)[:200]]
    caption = round(sum(len(framework.text.answer(prompt)) - 1 for prompt in prompts) / len(prompts))
    run = RunConfig(TrainConfig(max_steps=1), data=DataConfig(seconds=config.world.seconds), model=framework.config)
    flops = sample_flops(run, framework, caption)
    g_phi = getattr(framework.tokeniser, "motion_encoder", None)
    return {
        "tokens": tokens_of(config, framework),
        "flops": sum(part.model for name, part in flops.items() if name not in ONCE)
        * sum(fit.batch_size * fit.steps for fit in (config.fit, config.own.fit)),
        "g_phi": sum(p.numel() for p in g_phi.parameters()) if g_phi else 0,
    }  # fmt: skip
