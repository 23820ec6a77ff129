"""Decode a sample of a shard in full: its facts, for `index` and `verify`."""

from collections.abc import Callable

from data_tools.errors import BadVideo
from data_tools.shards import RawSample
from data_tools.video.facts import TEXT, VideoFacts, of_several


def measured(sample: RawSample, decoder: Callable[[bytes], VideoFacts]) -> VideoFacts:
    """The facts of a sample, of all its media together.

    Args:
        sample: the sample.
        decoder: decodes a video or an image in full.

    Raises:
        BadVideo: a medium cannot be decoded, or is not what the json says of it.
    """
    if not sample.extension:
        return TEXT
    found = [decoder(body) for body in (sample.video, *sample.others)]
    if not sample.others:
        return found[0]
    for told, facts in zip(sample.meta["media"], found):
        if told.get("facts") != facts.to_dict():
            raise BadVideo("wrong_facts", f"the json's facts of {told['member']} are not those of the file")
    return of_several(found)
