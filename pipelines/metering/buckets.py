"""Measures a micro-step of one sample in each bucket. Its FLOPs predict the sample's cost."""

from collections.abc import Sequence
from dataclasses import replace

from data_tools.video.views import Shape
from pipelines.config import CAPTION_TOKENS, RunConfig
from pipelines.metering.flops import part_flops
from pipelines.metering.step import Step, measure_step, meta_copy
from pipelines.metering.workload import typical_workload
from vtok.framework import VTokFramework
from vtok.rows.text import TextEncoder

# Another length of a caption, in tokens, to find what a token costs.
LONG_CAPTION = 2 * CAPTION_TOKENS


def bucket_steps(
    config: RunConfig,
    framework: VTokFramework,
    shapes: Sequence[Shape],
    caption_tokens: int = CAPTION_TOKENS,
    text: TextEncoder | None = None,
    sequence_parallel: int = 1,
) -> list[Step]:
    """Measures a micro-step of one captioned sample in each shape.

    Args:
        config: The run's configuration.
        framework: The run's framework, which may be sharded or on the meta device. A copy without storage runs.
        shapes: The views of each bucket.
        caption_tokens: Tokens of the caption.
        text: The run's tokenizers, as for :func:`typical_workload`.
        sequence_parallel: As in :func:`meta_copy`.
    """
    copy = meta_copy(framework.config, config.train.precision, config.train.parts, sequence_parallel)
    typical = typical_workload(config, copy, 1, caption_tokens, text)
    measured: dict[tuple, Step] = {}
    steps = []
    for shape in shapes:
        frames, video = shape.tokeniser, shape.decoder
        # An upright video takes the work of a lying one.
        key = frames, video and (video.num_frames, *sorted((video.height, video.width)))
        if key not in measured:
            load = replace(typical, frames=frames, video=video, tokens=copy.tokeniser.most(frames.num_frames))
            measured[key] = measure_step(copy, load)
        steps.append(measured[key])
    return steps


def without_video(shape: Shape) -> Shape:
    """Returns the views of a text alone, from those of all samples without a video: it has one black frame."""
    return replace(shape, tokeniser=replace(shape.tokeniser, num_frames=1))


def all_flops(step: Step, dec_every: int) -> float:
    """Returns the FLOPs that a sample's step executes, all parts together. The decoder's are averaged over steps."""
    return sum(flops.hardware for flops in part_flops(step, 1, dec_every).values())


def predicted_costs(
    config: RunConfig, framework: VTokFramework, shapes: Sequence[Shape], text: TextEncoder | None = None
) -> tuple[list[float], float]:
    """Predicts the cost of a sample in each bucket without its text, and that of a token of text, in FLOPs.

    Args:
        config: The run's configuration.
        framework: The run's framework.
        shapes: The views of the buckets, those of samples without a video last.
        text: The run's tokenizers.
    """
    every, shapes = config.model.loss.dec_every, [*shapes[:-1], without_video(shapes[-1])]
    costs = [all_flops(step, every) for step in bucket_steps(config, framework, shapes, text=text)]
    (longer,) = bucket_steps(config, framework, shapes[-1:], LONG_CAPTION, text)
    token = (all_flops(longer, every) - costs[-1]) / (LONG_CAPTION - CAPTION_TOKENS)
    return [cost - token * CAPTION_TOKENS for cost in costs], token
