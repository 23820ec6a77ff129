"""Frames by torchcodec, for the videos of which it gives the same pixels as PyAV."""

import importlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import av
import torch

from data_tools.errors import BadVideo, DataError
from data_tools.video.container import Source
from data_tools.video.display import orientation, transfer_of

INDEXED = ("mov", "matroska")


def torchcodec_problem() -> str:
    """Why torchcodec cannot be used here: it is not installed, or does not load beside this torch and FFmpeg; or ""."""
    try:
        importlib.import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError) as error:
        return str(error).splitlines()[0]
    return ""


def torchcodec_reader(source: Source, stream: int, frames: int) -> Any | None:
    """A torchcodec `VideoDecoder` of a video; None if it finds another number of frames.

    Args:
        source: the video.
        stream: its index in the file.
        frames: the number of its shown frames.

    Raises:
        DataError: torchcodec is not installed, or does not load beside this torch and FFmpeg.
        BadVideo: torchcodec cannot open the video.
    """
    if problem := torchcodec_problem():
        raise DataError(
            f"decoder 'torchcodec' does not load ({problem}): pip install 'vtok[torchcodec]' and FFmpeg's libraries, "
            "or choose 'pyav'"
        )
    from torchcodec.decoders import VideoDecoder  # an extra, which not everyone has

    with _told():
        reader = VideoDecoder(
            source if isinstance(source, bytes) else str(source),
            stream_index=stream, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact",
        )  # fmt: skip
        return reader if len(reader) == frames else None


def torchcodec_frames(reader: Any, shown: Sequence[int], wanted: Collection[int]) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (timestamp, uint8 RGB (h, w, 3) after rotation) for each wanted frame, in order.

    Args:
        reader: from `torchcodec_reader`.
        shown: timestamps of all frames, ascending.
        wanted: timestamps.

    Raises:
        BadVideo: a frame does not decode.
    """
    for number, stamp in enumerate(shown):
        if stamp in wanted:
            with _told():
                picture = reader[number]
            yield stamp, picture


def torchcodec_is_right(stream: av.VideoStream, first: av.VideoFrame) -> bool:
    """Whether torchcodec 0.13 gives the pixels of this file as PyAV does, which were compared.

    It gives wrong frames of a container without an index. It neither mirrors nor deinterlaces nor tone-maps. It
    converts chroma otherwise where a side is odd or a channel has more than 8 bits.

    Args:
        stream: the video.
        first: its first frame.
    """
    even = first.width % 2 == first.height % 2 == 0
    return (
        stream.container.format.name.startswith(INDEXED)
        and not first.interlaced_frame
        and not orientation(first).reflects
        and transfer_of(first) == "sdr"
        and all(component.bits == 8 for component in first.format.components)
        and (even or first.format.chroma_width(2) == first.format.chroma_height(2) == 2)
    )


@contextmanager
def _told() -> Iterator[None]:
    """Within, an error of torchcodec is a BadVideo."""
    try:
        yield
    except (RuntimeError, ValueError, IndexError) as error:
        raise BadVideo("corrupt", f"torchcodec: {str(error).splitlines()[0]}") from error
