"""Frames to an mp4 in memory, byte for byte the same each time."""

import io
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain

import av
import numpy as np


def encode_mp4(frames: Iterable[np.ndarray], fps: Fraction | int, crf: int) -> bytes:
    """An H.264 mp4, yuv420p, of `frames`: (h, w, 3) uint8 RGB of one size, at least one.

    One thread and bit-exact headers: equal frames give equal bytes. Odd sizes are padded with edge pixels.
    """
    frames = map(_pad_to_even, frames)
    first = next(frames)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": str(crf)})
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in chain([first], frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _pad_to_even(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
