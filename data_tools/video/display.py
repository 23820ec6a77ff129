"""How a decoded frame is shown: its colours, its aspect ratio, and which way is up."""

from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
import torch
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import VideoReformatter
from torch.nn.functional import interpolate

from data_tools.errors import BadVideo
from data_tools.video.hdr import TRANSFERS, tone_mapped

MAX_SIDE = 2**14  # pixels; a larger picture comes from a damaged header

BT709 = 1  # FFmpeg's number for its primaries, transfer and matrix
UNKNOWN = 2  # FFmpeg's number for a colour matrix that the file does not tell; swscale then assumes BT.601
RESERVED = 3  # a number without meaning: nothing is told
MATRICES = (0, 1, UNKNOWN, 4, 5, 6, 7, 9)  # those that swscale can apply
RANGES = (0, 1, 2)  # unknown (limited is assumed), limited, full


@dataclass(frozen=True)
class Orientation:
    """A coded frame is shown with its axes swapped, then mirrored left to right, then upside down, if set."""

    transposed: bool = False
    mirrored: bool = False
    upside_down: bool = False

    @property
    def changes(self) -> bool:
        """Whether a frame is shown otherwise than it is coded."""
        return self.transposed or self.mirrored or self.upside_down

    @property
    def reflects(self) -> bool:
        """Whether it is a reflection, so that writing is shown mirrored."""
        return self.transposed ^ self.mirrored ^ self.upside_down

    @property
    def rotation(self) -> int:
        """Degrees counter-clockwise (0, 90, 180 or 270) by which the frame, mirrored first if it `reflects`, turns."""
        if self.transposed:
            return 270 if self.mirrored else 90
        return 180 if self.upside_down else 0


def orientation(frame: av.VideoFrame) -> Orientation:
    """The orientation that the frame's display matrix gives; other angles are rounded to quarter turns.

    The matrix maps a coded (x, y) to the shown (a x + c y, b x + d y).
    """
    # Not `frame.side_data`: it makes a cycle, so the picture stays until the garbage collector comes.
    told = SideDataContainer(frame)  # type: ignore[call-arg]  # PyAV's stub leaves its argument out
    if "DISPLAYMATRIX" not in told:
        return Orientation()
    a, b, _, c, d, *_ = np.frombuffer(memoryview(told["DISPLAYMATRIX"]), np.int32).tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


def transfer_of(frame: av.VideoFrame) -> str:
    """The kind of transfer: "sdr", "pq" or "hlg"."""
    return TRANSFERS.get(frame.color_trc, "sdr")


class Screen:
    """Shows the frames of one stream as pictures of one size, that of the first frame.

    Args:
        stream: the stream.
        first: its first shown frame.

    Attributes:
        width: of the pictures, pixels: square ones, after rotation.
        height: as `width`.

    Raises:
        BadVideo: the size is absurd.
    """

    def __init__(self, stream: av.VideoStream, first: av.VideoFrame):
        self._stretch = float(stream.sample_aspect_ratio or 1)
        self._reformatter = VideoReformatter()
        self.width, self.height = self.size(first)

    def size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """(width, height) in which a player shows the frame. Non-square pixels are stretched sideways.

        Raises:
            BadVideo: the size is absurd.
        """
        width, height = max(1, round(frame.width * self._stretch)), frame.height
        if max(width, height) > MAX_SIDE:
            raise BadVideo("absurd_size", f"shown as {width} x {height} pixels")
        return (height, width) if orientation(frame).transposed else (width, height)

    def picture(self, frame: av.VideoFrame) -> torch.Tensor:
        """The frame as displayed, uint8 RGB (H, W, 3).

        It is converted at its own size, where swscale applies the colour matrix and range correctly.

        Raises:
            BadVideo: its colours cannot be converted.
        """
        picture, way = self._rgb(frame), orientation(frame)
        if way.transposed:
            picture = picture.transpose(0, 1)
        if flipped := [axis for axis, flip in enumerate((way.upside_down, way.mirrored)) if flip]:
            picture = picture.flip(flipped)
        return self.fitted(picture)

    def fitted(self, picture: torch.Tensor) -> torch.Tensor:
        """An upright picture, uint8 (h, w, 3), at the size of the screen."""
        if picture.shape[:2] == (self.height, self.width):
            return picture.contiguous()
        pixels = picture.permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)
        resized = interpolate(pixels, (self.height, self.width), mode="bicubic", antialias=True)
        return resized[0].permute(1, 2, 0).contiguous()

    def shown(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The frame as displayed, as a frame: itself, if it is coded as it is displayed.

        Raises:
            BadVideo: its colours cannot be converted.
        """
        size = frame.width, frame.height
        if (self.width, self.height) == size == self.size(frame) and not orientation(frame).changes:
            if transfer_of(frame) == "sdr":
                return with_known_colours(frame)
        shown = av.VideoFrame.from_ndarray(self.picture(frame).numpy(), format="rgb24")
        standard = transfer_of(frame) == "sdr"
        shown.color_primaries, shown.color_trc = (
            (frame.color_primaries, frame.color_trc) if standard else (BT709, BT709)
        )
        return shown

    def _rgb(self, frame: av.VideoFrame) -> torch.Tensor:
        """The frame as coded, uint8 RGB (h, w, 3), with a standard dynamic range."""
        with_known_colours(frame)
        transfer = transfer_of(frame)
        if transfer == "sdr":
            return torch.from_numpy(self._reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray())
        return tone_mapped(self._reformatter.reformat(frame, format="rgb48le", threads=1).to_ndarray(), transfer)


def with_known_colours(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame; numbers that mean nothing are removed from its colour tags.

    Raises:
        BadVideo: swscale cannot apply its colour matrix.
    """
    if frame.color_range not in RANGES:
        frame.color_range = 0
    if frame.colorspace == RESERVED:
        frame.colorspace = UNKNOWN
    if frame.colorspace not in MATRICES and not frame.format.is_rgb:
        raise BadVideo("unknown_colours", f"FFmpeg cannot convert the colour matrix {frame.colorspace} (ISO 23091-2)")
    return frame


def displayed(
    frames: Iterator[tuple[int, av.VideoFrame]], stream: av.VideoStream
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The frames of a stream as displayed, with their timestamps; all of the size of the first one."""
    screen: Screen | None = None
    for stamp, frame in frames:
        screen = screen or Screen(stream, frame)
        yield stamp, screen.shown(frame)
