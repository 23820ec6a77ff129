"""Frames to an mp4 in memory, byte for byte the same each time: one thread, bit-exact headers."""

import io
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain

import av
import numpy as np
from av.video.frame import PictureType

ENCODERS = {"h264": "libx264"}

# With x264's macroblock tree, as it runs on a CPU with AVX-512, the same frames gave eight different files in 14 runs,
# on one thread; without it, always the same one.
REPRODUCIBLE = {"x264-params": "mbtree=0"}


def encode_mp4(frames: Iterable[np.ndarray], fps: Fraction | int, crf: int) -> bytes:
    """An H.264 mp4, yuv420p, of `frames`: (h, w, 3) uint8 RGB of one size, at least one.

    Odd sizes are padded with edge pixels.
    """
    pictures = (av.VideoFrame.from_ndarray(_pad_to_even(frame), format="rgb24") for frame in frames)
    return encode_video(pictures, "h264", {"crf": str(crf)}, fps)


def encode_video(
    frames: Iterable[av.VideoFrame],
    codec: str,
    options: dict[str, str],
    fps: Fraction | int,
    time_base: Fraction | None = None,
) -> bytes:
    """An mp4, yuv420p, of `frames`: of one even size, at least one.

    Frames follow at `fps`, or, where a time base is given, stand at their own pts in it. Colours keep their tags.
    """
    frames = iter(frames)
    first = next(frames)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(ENCODERS[codec], rate=fps, options=REPRODUCIBLE | options)
        context = stream.codec_context
        stream.height, stream.width, stream.pix_fmt = first.height, first.width, "yuv420p"
        context.thread_count = 1
        for tag in ("colorspace", "color_range", "color_primaries", "color_trc"):
            setattr(context, tag, getattr(first, tag))
        if time_base is not None:
            context.time_base = time_base
        for frame in chain([first], frames):
            frame.pict_type = PictureType.NONE  # else a decoded frame would be encoded as what it was: I, P or B
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _pad_to_even(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
