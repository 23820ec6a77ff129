"""Validate one video or image, and decode the frames that it shows at given times.

`validate` decodes every frame, strictly, when shards are built. It also enters the clip at its key frames, as training
does, and compares. `decode` trusts what was found and decodes only the wanted frames. It chooses them by timestamp,
because the frame rate may vary.

Times are seconds from the first *shown* frame. Some packets are not shown: those before the first key frame (a
broadcast cut in mid-GOP) and those before the start of an edit list (a file cut without re-encoding keeps them as
references).
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain

import av
import torch

from data_tools.errors import BadVideo, DataError
from data_tools.video.complete import Receipts, check_end
from data_tools.video.container import Source, codec_of, container_of, opened, time_base
from data_tools.video.display import Screen, displayed, orientation, transfer_of
from data_tools.video.facts import IMAGE, KEY_FRAMES, START, VideoFacts
from data_tools.video.flv import check_tags
from data_tools.video.gif import check_blocks
from data_tools.video.hdr import TRANSFERS
from data_tools.video.image import image_facts, is_image, picture_of
from data_tools.video.interlace import deinterlaced
from data_tools.video.packets import decodable, entries, packets_of, promised
from data_tools.video.reader import from_entry, in_sequence
from data_tools.video.second import check_agreement, picture_print, second_decoder
from data_tools.video.times import TIE, duration_of, nearest, timed
from data_tools.video.trial import fingerprint, succeed, trials
from data_tools.video.with_decord import decord_frames, decord_is_right
from data_tools.video.with_torchcodec import torchcodec_frames, torchcodec_is_right, torchcodec_reader

BACKENDS = ("pyav", "torchcodec", "decord")

# Formats in which FFmpeg overlooks damage.
CHECKS = {"flv": check_tags, "gif": check_blocks}


def validate(source: Source) -> VideoFacts:
    """Decode every frame strictly, convert one of each form, and try the key frames at which reading may begin.

    A video cut in mid-GOP is accepted without the frames before its first key frame, which cannot be decoded. All
    later frames are exact.

    An image has the facts of a video of one frame.

    Raises:
        BadVideo: anything is wrong with the file.
    """
    if is_image(source):
        return image_facts(source)
    with opened(source) as stream:
        packets = _whole(stream, source)
        tried = trials(stream, packets)
        compared = frozenset().union(*(trial.compared for trial in tried))
        stamps: list[int] = []
        prints: dict[int, int] = {}
        second, pictures = second_decoder(stream), list[int]()
        forms: dict[tuple, av.VideoFrame] = {}
        screen: Screen | None = None
        own_times = True
        for stamp, frame in _strictly(stream, packets, source):
            screen = screen or Screen(stream, frame)
            if _form(frame) not in forms:
                screen.picture(frame)
                forms[_form(frame)] = frame
            if stamp in compared:
                prints[stamp] = fingerprint(frame)
            if second is not None:
                pictures.append(picture_print(frame))
            stamps.append(stamp)
            own_times &= frame.pts == stamp
        assert screen is not None  # `_strictly` raises BadVideo if there is no frame
        first = next(iter(forms.values()))
        interlaced = any(frame.interlaced_frame for frame in forms.values())
        one_size = len({(frame.width, frame.height) for frame in forms.values()}) == 1
        packets_tell = own_times and stamps == promised(packets, codec_of(stream)) and len(set(stamps)) == len(stamps)
        plain = packets_tell and one_size and not interlaced
        duration = duration_of(stamps, time_base(stream))
        if second is not None:
            check_agreement(second, packets, pictures)
        return VideoFacts(
            width=screen.width,
            height=screen.height,
            fps=len(stamps) / duration,
            frames=len(stamps),
            duration=duration,
            codec=codec_of(stream),
            rotation=orientation(first).rotation,
            mirrored=orientation(first).reflects,
            interlaced=interlaced,
            pix_fmt=first.format.name,
            transfer=next((kind for frame in forms.values() if (kind := transfer_of(frame)) != "sdr"), "sdr"),
            entry=KEY_FRAMES if plain and succeed(source, tried, prints) else START,
        )


def measured_duration(source: Source) -> float:
    """The duration as in `VideoFacts`, in seconds, from the packets' timestamps; nothing is decoded if they tell it.

    Raises:
        BadVideo: the duration cannot be found.
    """
    if is_image(source):
        return 0.0
    with opened(source) as stream:
        packets = list(decodable(packets_of(stream), stream))
        stamps = [packet.pts for packet in packets]
        if None in stamps or len(set(stamps)) < len(stamps):
            return duration_of([stamp for stamp, _ in in_sequence(stream, packets)], time_base(stream))
        return duration_of(promised(packets, codec_of(stream)), time_base(stream))


def told_transfer(source: Source) -> str:
    """The kind of transfer, as in `VideoFacts`, that the video's headers tell.

    Raises:
        BadVideo: the video cannot be opened.
    """
    with opened(source) as stream:
        return TRANSFERS.get(stream.codec_context.color_trc, "sdr")


def whole_frames(source: Source) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yield (time in seconds, frame as displayed) for every shown frame; all of one size.

    Raises:
        BadVideo: in the cases of `validate`, at the latest after the last frame.
    """
    with opened(source) as stream:
        frames = displayed(deinterlaced(_strictly(stream, _whole(stream, source), source)), stream)
        yield from timed(frames, time_base(stream))


def decode(
    source: Source, times: Sequence[float], backend: str = "pyav", entry: str | None = None
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Decode the shown frames nearest to given times, each once, in order.

    Args:
        source: the video.
        times: seconds, ascending, at least one. A time half-way between two frames means the earlier one; a time past
            the end means the last frame.
        backend: one of `BACKENDS`. What torchcodec would show otherwise is read by PyAV; decord refuses it.
        entry: as in `VideoFacts`; None if it is not known. An `IMAGE` gives its picture for all times. Of a video all
            but `KEY_FRAMES` decode from the start.

    Yields:
        (indices into `times` for this frame, uint8 RGB (H, W, 3) as displayed).

    Raises:
        DataError: the backend is unknown or not installed.
        BadVideo: while iterating, if the video cannot be decoded.
    """
    if backend not in BACKENDS:
        raise DataError(f"unknown decoder '{backend}': choose one of {', '.join(BACKENDS)}")
    if entry == IMAGE or (entry is None and is_image(source)):
        return iter([(list(range(len(times))), picture_of(source))])
    if backend == "decord":
        return _by_decord(source, times, entry)
    return _by_torchcodec(source, times, entry) if backend == "torchcodec" else _by_pyav(source, times, entry)


def _by_pyav(source: Source, times: Sequence[float], entry: str | None) -> Iterator[tuple[list[int], torch.Tensor]]:
    return _from_key_frame(source, times) if entry == KEY_FRAMES else _from_start(source, times)


def _from_start(source: Source, times: Sequence[float]) -> Iterator[tuple[list[int], torch.Tensor]]:
    with opened(source) as stream:
        frames = timed(deinterlaced(in_sequence(stream, decodable(packets_of(stream), stream))), time_base(stream))
        first = next(frames, None)
        if first is None:
            raise BadVideo("no_frames", "no frame decodes")
        screen = Screen(stream, first[1])
        for indices, frame in nearest(chain([first], frames), times):
            yield indices, screen.picture(frame)


def _from_key_frame(source: Source, times: Sequence[float]) -> Iterator[tuple[list[int], torch.Tensor]]:
    with opened(source) as stream:
        packets = list(decodable(packets_of(stream), stream))
        wanted = _wanted(promised(packets, codec_of(stream)), times, time_base(stream))
        first = min(wanted)
        stamped = ((begin, packets[begin].pts) for begin in entries(packets, stream))
        begin = max(begin for begin, stamp in stamped if begin == 0 or (stamp is not None and stamp <= first))
        screen: Screen | None = None
        for stamp, frame in from_entry(stream.codec_context, packets[begin:], wanted):
            if indices := wanted.pop(stamp, None):
                screen = screen or Screen(stream, frame)
                yield indices, screen.picture(frame)
            if not wanted:
                return
        raise BadVideo("missing_frames", f"{len(wanted)} of the wanted frames do not decode")


def _by_decord(source: Source, times: Sequence[float], entry: str | None) -> Iterator[tuple[list[int], torch.Tensor]]:
    """As `decode`. decord can crash on a damaged file: use it for validated clips only."""
    with opened(source) as stream:
        packets = list(packets_of(stream))
        shown = promised(decodable(packets, stream), codec_of(stream))
        wanted = _wanted(shown, times, time_base(stream))
        _, first = next(in_sequence(stream, decodable(packets, stream)))
        if entry == START or not decord_is_right(stream, packets, shown, first):
            raise BadVideo("decord_unsupported", "decord would return wrong frames for this file: choose 'pyav'")
        screen = Screen(stream, first)
    for stamp, picture in decord_frames(source, shown, wanted):
        yield wanted[stamp], screen.fitted(picture)


def _by_torchcodec(
    source: Source, times: Sequence[float], entry: str | None
) -> Iterator[tuple[list[int], torch.Tensor]]:
    with opened(source) as stream:
        packets = list(decodable(packets_of(stream), stream))
        shown = promised(packets, codec_of(stream))
        wanted = _wanted(shown, times, time_base(stream))
        _, first = next(in_sequence(stream, packets))
        screen, index = Screen(stream, first), stream.index
        right = entry != START and torchcodec_is_right(stream, first)
    reader = torchcodec_reader(source, index, len(shown)) if right else None
    if reader is None:
        yield from _by_pyav(source, times, entry)
        return
    for stamp, picture in torchcodec_frames(reader, shown, wanted):
        yield wanted[stamp], screen.fitted(picture)


def _whole(stream: av.VideoStream, source: Source) -> list[av.Packet]:
    """The packets to decode. Raises BadVideo if the file has none, ends too early, or contradicts itself."""
    if check := CHECKS.get(container_of(stream).format.name):
        check(source)
    packets = list(packets_of(stream))
    check_end(stream, packets, source)
    return list(decodable(packets, stream))


def _strictly(stream: av.VideoStream, packets: list[av.Packet], source: Source) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield (timestamp, frame) for all shown frames; raises BadVideo if anything is missing or damaged."""
    receipts = Receipts(stream, source)
    stamps: list[int] = []
    for stamp, frame in in_sequence(stream, packets, receipts):
        stamps.append(stamp)
        yield stamp, frame
    if not stamps:
        raise BadVideo("no_frames", "no frame decodes, or the edit list shows none")
    duration_of(stamps, time_base(stream))  # raises BadVideo if there is one frame only, or one time only
    receipts.check(stamps)


def _form(frame: av.VideoFrame) -> tuple:
    """What decides how a frame is converted."""
    colours = frame.colorspace, frame.color_range, frame.color_trc, frame.color_primaries
    return frame.width, frame.height, frame.format.name, frame.interlaced_frame, orientation(frame), *colours


def _wanted(shown: list[int], times: Sequence[float], unit: Fraction) -> dict[int, list[int]]:
    """Timestamp of each frame to decode, ascending -> indices of the `times` (seconds) nearest to it.

    Raises:
        BadVideo: no frame is shown.
    """
    if not shown:
        raise BadVideo("no_frames", "no packet says when its frame is shown")
    seconds = [float((stamp - shown[0]) * unit) for stamp in shown]
    wanted: dict[int, list[int]] = {}
    for index, time in enumerate(times):
        later = min(bisect_left(seconds, time), len(seconds) - 1)
        earlier = max(later - 1, 0)
        near = earlier if time - seconds[earlier] <= seconds[later] - time + TIE else later
        wanted.setdefault(shown[near], []).append(index)
    return wanted
