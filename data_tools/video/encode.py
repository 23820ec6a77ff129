"""Encode frames to an mp4 in memory. The bytes are reproducible: one thread, bit-exact headers."""

import io
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from typing import Literal

import av
import numpy as np
from av.video.frame import PictureType

# "tonemap" draws clips with a high dynamic range in a standard one: those that are kept when they are read, those that
# are re-encoded when they are packed. "reject" leaves them out.
HDR = ("tonemap", "reject")

ENCODERS: dict[str, Literal["libx264"]] = {"h264": "libx264"}

# x264's macroblock tree is not deterministic: on a CPU with AVX-512 the same frames gave 8 different files in 14 runs
# on one thread. Without it the file was always the same.
REPRODUCIBLE = {"x264-params": "mbtree=0"}


def encode_mp4(frames: Iterable[np.ndarray], fps: Fraction | int, crf: int) -> bytes:
    """Encode an H.264 mp4, yuv420p.

    Args:
        frames: at least one, uint8 RGB (h, w, 3), all of one size. Odd sizes are padded with edge pixels.
        fps: frames per second.
        crf: x264's quality; lower is better.
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
    """Encode an mp4, yuv420p. The colour tags of the first frame are kept.

    Args:
        frames: at least one, all of one even size.
        codec: a key of `ENCODERS`.
        options: options of the encoder.
        fps: frames per second.
        time_base: unit of the frames' own pts, in seconds; None to ignore pts and space the frames by `fps`.
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
            frame.pict_type = PictureType.NONE  # else the encoder keeps the type (I, P, B) of a decoded frame
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _pad_to_even(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
