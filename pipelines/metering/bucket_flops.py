"""Counts the FLOPs of a sample in each bucket. They predict its cost."""

from collections.abc import Sequence
from dataclasses import replace

from data_tools.video.views import Shape
from pipelines.config import CAPTION_TOKENS, RunConfig
from pipelines.metering.flops import Flops, part_flops
from pipelines.metering.step import measure_step, meta_copy
from pipelines.metering.workload import typical_workload
from vtok.framework import VTokFramework
from vtok.rows.text import TextEncoder


def bucket_flops(
    config: RunConfig,
    framework: VTokFramework,
    shapes: Sequence[Shape],
    caption_tokens: int = CAPTION_TOKENS,
    text: TextEncoder | None = None,
) -> list[Flops]:
    """Counts the FLOPs of a sample with a caption of this length in each shape, all parts together.

    Args:
        config: The run's configuration.
        framework: The run's framework, which may be sharded or on the meta device. A copy without storage runs.
        shapes: The views of each bucket.
        caption_tokens: Tokens of the caption.
        text: The run's tokenizers, as for :func:`typical_workload`.
    """
    copy = meta_copy(framework.config, config.train.precision, config.train.parts)
    typical = typical_workload(config, copy, 1, caption_tokens, text)
    counted: dict[tuple, Flops] = {}
    found = []
    for shape in shapes:
        frames, video = shape.tokeniser, shape.decoder
        # An upright video costs what a lying one does.
        key = frames, video and (video.num_frames, *sorted((video.height, video.width)))
        if key not in counted:
            load = replace(typical, frames=frames, video=video, tokens=copy.tokeniser.counts(frames.num_frames))
            parts = part_flops(measure_step(copy, load), 1, config.model.loss.dec_every)
            counted[key] = Flops(*map(sum, zip(*parts.values())))
        found.append(counted[key])
    return found
