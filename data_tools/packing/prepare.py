"""Turn one clip of the input into one sample: read, cut, re-encode, validate, filter.

Runs in a child process (see `processes`), because a decoder may crash on a damaged file.
"""

import math
from dataclasses import dataclass

from data_tools.errors import BadVideo, DataError
from data_tools.packing.sources import Clip, Item
from data_tools.packing.transcode import Encoding, transcode
from data_tools.shards import RawSample
from data_tools.shards.samples import MEDIA_ENDINGS
from data_tools.texts import plain
from data_tools.video.decode import told_transfer, validate
from data_tools.video.encode import HDR
from data_tools.video.facts import TEXT, VideoFacts, of_several
from data_tools.video.image import is_image


@dataclass(frozen=True)
class Recipe:
    """How every clip is processed and filtered.

    Attributes:
        encoding: how to re-encode; None keeps the bytes, except for clips that must be cut. Images keep theirs.
        max_seconds: longer clips are cut to their first seconds; None for no limit.
        min_frames: least number of frames of a video.
        min_side: least shorter side of the result, pixels.
        hdr: what becomes of clips with a high dynamic range (see `HDR`).
    """

    encoding: Encoding | None = None
    max_seconds: float | None = None
    min_frames: int = 2
    min_side: int = 1
    hdr: str = "tonemap"

    def check(self) -> None:
        """Raise DataError if a value is out of range."""
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise DataError(f"the maximum length of a clip must be above 0 seconds, not {self.max_seconds:g}")
        if self.hdr not in HDR:
            raise DataError(f"unknown treatment of HDR '{self.hdr}': choose one of {', '.join(HDR)}")
        if self.encoding:
            self.encoding.check()


def prepare(number: int, item: Item, recipe: Recipe) -> RawSample:
    """The sample of clip `number`. The validated bytes are the packed bytes.

    Raises:
        BadVideo: the clip cannot be used.
    """
    try:
        clip = item.load()
        if clip.is_text:
            return RawSample(f"{number:09d}", b"", "", plain(clip.meta) | {"facts": TEXT.to_dict()})
        if clip.others:
            return _several(number, clip, recipe)
        video, extension, facts = _checked(clip, recipe)
    except OSError as error:
        raise BadVideo("unreadable", str(error)) from error
    return RawSample(f"{number:09d}", video, extension, plain(clip.meta) | {"facts": facts.to_dict()})


def _several(number: int, clip: Clip, recipe: Recipe) -> RawSample:
    """The sample of a conversation about several media. Raises BadVideo if one of them cannot be used."""
    bodies, media = [], []
    for place, (body, extension) in enumerate([(clip.video, clip.extension), *clip.others]):
        try:
            video, ending, facts = _checked(Clip(body, extension, {}), recipe)
        except BadVideo as problem:
            raise BadVideo(problem.reason, f"medium {place + 1}: {problem.detail}") from problem
        bodies.append(video)
        media.append((f"{place}{ending}", facts))
    told = [
        medium | {"member": name, "facts": facts.to_dict()} for medium, (name, facts) in zip(clip.meta["media"], media)
    ]
    meta = plain(clip.meta) | {"media": told, "facts": of_several([facts for _, facts in media]).to_dict()}
    return RawSample(f"{number:09d}", bodies[0], f".{media[0][0].partition('.')[2]}", meta, others=tuple(bodies[1:]))


def _checked(clip: Clip, recipe: Recipe) -> tuple[bytes, str, VideoFacts]:
    """(bytes, ending, facts) of the processed video or image. Raises BadVideo if it fails the recipe's filters."""
    image = is_image(clip.video)
    if recipe.hdr == "reject" and not image and (kind := told_transfer(clip.video)) != "sdr":
        raise BadVideo("hdr", f"the clip has a high dynamic range ({kind}); --hdr tonemap packs it")
    video, extension, facts = _video(clip, recipe)
    if not image and facts.frames < recipe.min_frames:
        raise BadVideo("too_few_frames", f"{facts.frames} frames, fewer than {recipe.min_frames}")
    if min(facts.width, facts.height) < recipe.min_side:
        raise BadVideo("too_small", f"{facts.width} x {facts.height} pixels, a side is below {recipe.min_side}")
    return video, extension, facts


def _video(clip: Clip, recipe: Recipe) -> tuple[bytes, str, VideoFacts]:
    """(bytes, ending, facts from a full decode) of the processed clip. Raises BadVideo."""
    longest = recipe.max_seconds or math.inf
    if is_image(clip.video) and clip.span:
        raise BadVideo("bad_span", "an image has no part from `start` to `end`: leave both out")
    if clip.span is None and isinstance(clip.video, bytes) and (recipe.encoding is None or is_image(clip.video)):
        facts = validate(clip.video)
        if facts.duration <= longest:
            ending = clip.extension.removeprefix(".").lower()
            # In a shard the ending tells the video from the texts, so one like ".txt" or none would not do.
            return clip.video, f".{ending if ending in MEDIA_ENDINGS else 'video'}", facts
    start, end = clip.span or (0.0, math.inf)
    encoded = transcode(clip.video, recipe.encoding or Encoding(), start, min(end, start + longest))
    return encoded, ".mp4", validate(encoded)
