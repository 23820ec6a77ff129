"""Motion vectors of frames, from an mpeg4 encoder that runs in memory.

The encoder looks for every block of 16 x 16 pixels in the frame before. Video-LaViT reads these vectors off videos that
it has encoded again as mpeg4, with a key frame (which has no vectors) every 12 frames. We encode the frames that the
tokeniser sees, so the vectors are a function of these frames alone. libavcodec exports exact vectors for mpeg4; those
of its H.264 decoder are off, and it exports none for HEVC and VP9.
"""

import io
from typing import Literal

import av
import numpy as np
import torch
import torch.nn.functional as F
from av.sidedata.sidedata import SideDataContainer
from torch import Tensor

from vtok.config import require

GROUP = 12  # frames from one key frame of the encoder to the next
BLOCK = 16  # pixels along a side of a block
BITS_PER_SECOND = 8_000_000  # the published setting
RATE = 6  # frames per second of the encoded stream; it only matters to the encoder's control of the bit rate
CODEC: Literal["mpeg4"] = "mpeg4"


def motion_vectors(frames: Tensor, height: int, width: int) -> Tensor:
    """Returns how far each part of a frame has moved since the frame before.

    Args:
        frames: (T, 3, H, W) ``uint8``.
        height, width: Cells of the result.

    Returns:
        (T - 1, 2, height, width), fp32: x and y of the movement into frames 1 ... T - 1, in percent of the picture's
        width and height. A key frame of the encoder has the mean of its neighbours.
    """
    require(frames.dtype == torch.uint8, "motion vectors are those of uint8 frames")
    if len(frames) == 1:
        return torch.zeros(0, 2, height, width)
    fields = between_neighbours(exported(encoded(frames.cpu()), *frames.shape[-2:]))
    return F.interpolate(fields, (height, width), mode="bicubic", align_corners=False)


def encoded(frames: Tensor) -> bytes:
    """Encodes frames (T, 3, H, W) ``uint8`` as mpeg4. Odd sizes are padded with edge pixels."""
    height, width = frames.shape[-2:]
    padded = (
        F.pad(frames.float(), (0, width % 2, 0, height % 2), "replicate").byte() if height % 2 + width % 2 else frames
    )
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="avi", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(CODEC, rate=RATE, options={"g": str(GROUP)})
        context = stream.codec_context
        stream.height, stream.width, stream.pix_fmt = padded.shape[2], padded.shape[3], "yuv420p"
        context.thread_count, context.bit_rate = 1, BITS_PER_SECOND
        for picture in padded.permute(0, 2, 3, 1).contiguous().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def exported(video: bytes, height: int, width: int) -> Tensor:
    """Reads the vectors of an mpeg4 video of height x width pixels.

    Returns:
        (T, 2, rows, columns), fp32, one cell for a block, in percent of width and height. Blocks without a vector,
        which the encoder drew anew, are zero. A block of four vectors has their mean.
    """
    rows, columns = -(-height // BLOCK), -(-width // BLOCK)
    fields = []
    with av.open(io.BytesIO(video), "r") as container:
        stream = container.streams.video[0]
        stream.codec_context.options = {"flags2": "+export_mvs"}
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            field = np.zeros((2, rows, columns))
            # Not `frame.side_data`: it makes a cycle, so the picture stays until the garbage collector comes.
            found = SideDataContainer(frame).get("MOTION_VECTORS")  # type: ignore[call-arg]  # missing in PyAV's stub
            if found is not None:
                add_vectors(field, found.to_ndarray())
            fields.append(field)
    scale = np.array([100 / width, 100 / height]).reshape(2, 1, 1)
    return torch.from_numpy(np.stack(fields) * scale).float()


def add_vectors(field: np.ndarray, vectors: np.ndarray) -> None:
    """Writes exported vectors into a frame's cells (2, rows, columns), in pixels.

    An exported vector points from a block to where its pixels were in the frame before (``source`` -1). The movement
    is its opposite.
    """
    row, column = vectors["dst_y"] // BLOCK, vectors["dst_x"] // BLOCK
    share = vectors["w"].astype(float) * vectors["h"] / BLOCK**2
    for axis, name in enumerate(("motion_x", "motion_y")):
        moved = vectors["source"] * vectors[name] / vectors["motion_scale"]
        np.add.at(field[axis], (row, column), share * moved)


def between_neighbours(fields: Tensor) -> Tensor:
    """Drops frame 0, and gives the encoder's other key frames the mean of the frames before and after.

    Args:
        fields: (T, ...), of which frames 0, 12, 24, ... are key frames.

    Returns:
        (T - 1, ...). The last frame, if it is a key frame, has the vectors of the one before.
    """
    result, last = fields.clone(), len(fields) - 1
    for index in range(GROUP, len(fields), GROUP):
        result[index] = (fields[index - 1] + fields[min(index + 1, last)]) / 2 if index < last else fields[index - 1]
    return result[1:]
