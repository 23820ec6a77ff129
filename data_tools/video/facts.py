"""Facts of a sample: of its video or image, as a full decode measures them, of several together, or of a text.

The number of frames tells the kind: 0 is a text alone, 1 an image, and a video has 2 or more. The codec of several
media together is `SEVERAL`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

# Where decoding may begin for a frame: at the last key frame before it, or only at the first. An image is one picture.
KEY_FRAMES, START, IMAGE = "key_frames", "start", "image"


@dataclass(frozen=True)
class VideoFacts:
    """Facts of a video, measured by a full decode. An image is a video of one frame, with rate and duration 0.

    Attributes:
        width: pixels as displayed: square ones, after rotation. Later frames of another size are resized to it.
        height: as `width`.
        fps: frames / duration.
        frames: number of shown frames.
        duration: seconds from the first frame to the last, plus the median interval between frames.
        codec: FFmpeg's name, such as "h264"; "jpeg", "png", "webp", "bmp" or "gif" for an image.
        rotation: degrees counter-clockwise (0, 90, 180 or 270) by which coded frames are rotated for display.
        mirrored: whether coded frames are mirrored left to right before that.
        interlaced: whether some frames are interlaced; they are deinterlaced when they are read.
        pix_fmt: FFmpeg's name of the pixel format, such as "yuv420p"; Pillow's mode for an image.
        transfer: "sdr", or "pq" or "hlg" for a high dynamic range, which is tone-mapped when it is read.
        entry: `KEY_FRAMES` or `START`; `IMAGE` for an image.
    """

    width: int
    height: int
    fps: float
    frames: int
    duration: float
    codec: str
    rotation: int
    mirrored: bool
    interlaced: bool
    pix_fmt: str
    transfer: str
    entry: str

    def to_dict(self) -> dict:
        """The facts as plain JSON values."""
        return asdict(self)


SEVERAL = "several"


def of_several(media: Sequence[VideoFacts]) -> VideoFacts:
    """The facts of two or more media together: the largest sides, and the sums of their frames and durations."""
    frames, duration = sum(one.frames for one in media), sum(one.duration for one in media)
    return VideoFacts(
        width=max(one.width for one in media),
        height=max(one.height for one in media),
        fps=frames / duration if duration else 0.0,
        frames=frames,
        duration=duration,
        codec=SEVERAL,
        rotation=0,
        mirrored=False,
        interlaced=any(one.interlaced for one in media),
        pix_fmt="none",
        transfer="sdr",
        entry=START,
    )


# The facts of a sample that is a text alone.
TEXT = VideoFacts(
    width=0,
    height=0,
    fps=0.0,
    frames=0,
    duration=0.0,
    codec="text",
    rotation=0,
    mirrored=False,
    interlaced=False,
    pix_fmt="none",
    transfer="sdr",
    entry=START,
)
