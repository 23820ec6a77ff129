"""Decode a sample of a shard in full: its facts, for `index` and `verify`."""

from collections.abc import Callable

from data_tools.errors import BadVideo
from data_tools.shards import RawSample
from data_tools.video.facts import TEXT, VideoFacts, of_several

# Facts that every sidecar has. Older builds did not measure the others.
REQUIRED = frozenset({"width", "height", "fps", "frames", "duration", "codec", "rotation", "pix_fmt"})


def measured(sample: RawSample, decoder: Callable[[bytes], VideoFacts], precomputed: bool) -> dict:
    """The facts of a sample, of all its media together, as `VideoFacts.to_dict` gives them.

    Args:
        sample: the sample.
        decoder: decodes a video or an image in full.
        precomputed: whether the dataset stores views. Its samples may have no video: then the json's facts hold.

    Raises:
        BadVideo: a medium cannot be decoded, or is not what the json says of it; or the json lacks facts that hold.
    """
    if not sample.extension:
        return TEXT.to_dict()
    if precomputed and not sample.video:
        return _told(sample)
    return _of_media(sample, decoder).to_dict()


def _told(sample: RawSample) -> dict:
    facts = sample.meta.get("facts", {})
    if lacking := REQUIRED - facts.keys():
        named = ", ".join(sorted(lacking))
        raise BadVideo("wrong_facts", f"its video was left out, and the json lacks {named}: precompute it again")
    return facts


def _of_media(sample: RawSample, decoder: Callable[[bytes], VideoFacts]) -> VideoFacts:
    found = [decoder(body) for body in (sample.video, *sample.others)]
    if not sample.others:
        return found[0]
    for told, facts in zip(sample.meta["media"], found):
        if told.get("facts") != facts.to_dict():
            raise BadVideo("wrong_facts", f"the json's facts of {told['member']} are not those of the file")
    return of_several(found)
