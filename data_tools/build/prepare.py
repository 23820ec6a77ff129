"""One clip of the input to one sample of a shard: read, cut and encoded anew where asked, checked, filtered.

Runs in a process of its own (see `processes`): a decoder that crashes on a damaged file takes only that process along.
"""

import json
import math
from dataclasses import dataclass

from data_tools.build.sources import Clip, Item
from data_tools.build.transcode import Encoding, transcode
from data_tools.errors import BadVideo, DataError
from data_tools.shards import RawSample
from data_tools.video import VideoFacts, validate


@dataclass(frozen=True)
class Recipe:
    """What is done to every clip.

    encoding: None leaves the bytes as they are, except for clips that have to be cut.
    max_seconds: longer clips are cut to this from their beginning; None for no limit.
    min_frames, min_side: what the clip must have in the end; pixels of the shorter side.
    """

    encoding: Encoding | None = None
    max_seconds: float | None = None
    min_frames: int = 2
    min_side: int = 1

    def check(self) -> None:
        """Raises DataError for values that cannot be meant."""
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise DataError(f"the longest clip must be above 0 seconds, not {self.max_seconds:g}")
        if self.encoding:
            self.encoding.check()


def prepare(number: int, item: Item, recipe: Recipe) -> RawSample:
    """The sample of clip `number`: the bytes that pass are the bytes that are packed. Raises BadVideo."""
    try:
        clip = item.load()
        video, extension, facts = _video(clip, recipe)
    except OSError as error:
        raise BadVideo("unreadable", str(error)) from error
    if facts.frames < recipe.min_frames:
        raise BadVideo("too_few_frames", f"{facts.frames}, fewer than {recipe.min_frames}")
    if min(facts.width, facts.height) < recipe.min_side:
        raise BadVideo("too_small", f"{facts.width} x {facts.height}, a side below {recipe.min_side}")
    # Tables hold dates and the like, which JSON writes as text.
    meta = json.loads(json.dumps(clip.meta, default=str))
    return RawSample(f"{number:09d}", video, extension, meta | {"facts": facts.to_dict()})


def _video(clip: Clip, recipe: Recipe) -> tuple[bytes, str, VideoFacts]:
    """The clip's bytes, their ending and what a full decode of them has seen."""
    longest = recipe.max_seconds or math.inf
    if clip.span is None and recipe.encoding is None:
        facts = validate(clip.video)
        if facts.duration <= longest:
            return clip.video, clip.extension, facts
    start, end = clip.span or (0.0, math.inf)
    encoded = transcode(clip.video, recipe.encoding or Encoding(), start, min(end, start + longest))
    return encoded, ".mp4", validate(encoded)
