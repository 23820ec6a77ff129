"""The two views of a clip: few small frames for the tokeniser, many wide ones for the video decoder's loss.

Both show the same window of time and, when cropped, the same part of the picture, and come from one decode. All but
`make_views` is arithmetic.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import interpolate

from data_tools.errors import DataError
from data_tools.streaming.memory import blank
from data_tools.video import Source, decode

FITS = ("crop", "pad")

# Frames of a video VAE's step in time: it takes 4k + 1 frames.
VAE_STRIDE = 4

# Seconds. Some containers round timestamps to the millisecond, so a clip can seem that much too short.
ROUNDING = 1e-3

# The draw of `window` that puts it in the middle of a clip.
CENTRE = 0.5


@dataclass(frozen=True)
class View:
    """What one reader of a clip wants to see.

    num_frames: frames of a full window.
    stride: a count of frames is a multiple of this, plus 1.
    """

    fps: float
    num_frames: int
    height: int
    width: int
    stride: int = 1


@dataclass(frozen=True)
class Box:
    """A rectangle of whole pixels; (x, y) is its top left corner."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Placement:
    """Where the picture goes: `source` of the frame is resized to fill `target` of the view.

    What of `target` hangs over the view's edges is lost; what it leaves free of the view is black.
    """

    source: Box
    target: Box


@dataclass(frozen=True)
class Views:
    """Both views of one window. Frames from `valid` on repeat the last valid one."""

    frames: torch.Tensor | None  # uint8 (T, 3, h, w), for the tokeniser
    frames_valid: int  # 0 without `frames`
    video: torch.Tensor | None  # uint8 (F, 3, H, W), for the decoder's loss
    video_valid: int  # 0 without `video`


def tokeniser_view(seconds: float, fps: float, height: int, width: int) -> View:
    """A frame at each end of the window and every 1/fps seconds between: 5 s at 6/s are 31 frames."""
    return View(fps, round(seconds * fps) + 1, height, width)


def decoder_view(seconds: float, fps: float, height: int, width: int, latent_frames: int | None = None) -> View:
    """The largest 4k + 1 frames that fit in the window: 5 s at 24/s are 121 frames.

    Of them the first `latent_frames`, k + 1, of the VAE at most, if given.
    """
    frames = _floor(round(seconds * fps) + 1, VAE_STRIDE)
    if latent_frames is not None:
        frames = min(frames, VAE_STRIDE * (latent_frames - 1) + 1)
    return View(fps, frames, height, width, VAE_STRIDE)


def window(duration: float, seconds: float, draw: float) -> float:
    """Start, in seconds, of a window in a clip: anywhere for `draw` uniform in [0, 1), centred for 0.5.

    A clip that is shorter than the window is seen from its beginning.
    """
    return max(0.0, duration - seconds) * draw


def view_times(view: View, start: float, end_of_clip: float) -> tuple[list[float], int]:
    """Times in seconds of the view's frames, and how many of them, from the first, lie inside the clip (at least 1).

    The clip's last frame is on show until `end_of_clip`, its duration; a time up to then looks at it.
    """
    times = [start + index / view.fps for index in range(view.num_frames)]
    inside = sum(time <= end_of_clip + ROUNDING for time in times)
    return times, _floor(max(inside, 1), view.stride)


def fit_box(src_w: int, src_h: int, dst_w: int, dst_h: int, fit: str) -> Placement:
    """Fit a frame of src_w x src_h to a view of dst_w x dst_h without distorting it, centred.

    fit: "crop" fills the view and loses what overhangs; "pad" shows the whole frame between black bars.
    """
    source, target = Box(0, 0, src_w, src_h), Box(0, 0, dst_w, dst_h)
    if fit == "crop":
        return Placement(_largest_inside(source, dst_w, dst_h), target)
    if fit == "pad":
        return Placement(source, _largest_inside(target, src_w, src_h))
    raise DataError(f"unknown fit '{fit}': choose one of {', '.join(FITS)}")


def cover(source: Box, width: int, height: int) -> Placement:
    """Part of a frame resized until it covers the view, centred, as in CLIP's preprocessing, whose rounding this is."""
    if source.width * height > source.height * width:
        target_w, target_h = source.width * height // source.height, height
    else:
        target_w, target_h = width, source.height * width // source.width
    return Placement(source, Box(-((target_w - width) // 2), -((target_h - height) // 2), target_w, target_h))


def placements(src_w: int, src_h: int, tokeniser: View, decoder: View | None, fit: str) -> list[Placement]:
    """The placement of a frame in the tokeniser's view and, if there is one, in the decoder's.

    The decoder's crop comes first; the tokeniser sees the centre of it, so that it describes nothing that the decoder
    is not asked to draw.
    """
    alone = fit_box(src_w, src_h, tokeniser.width, tokeniser.height, fit)
    shared = [fit_box(src_w, src_h, decoder.width, decoder.height, fit)] if decoder else []
    if fit == "pad":
        return [alone, *shared]
    part = shared[0].source if shared else Box(0, 0, src_w, src_h)
    return [cover(part, tokeniser.width, tokeniser.height), *shared]


def make_views(
    source: Source,
    duration: float,
    tokeniser: View,
    decoder: View | None,
    start: float,
    fit: str = "crop",
    backend: str = "pyav",
    skip: Collection[str] = (),
) -> Views:
    """Both views of the window that begins at `start` seconds, from one decode of the clip.

    `duration` is the clip's own, as `video.validate` measured it. A view named in `skip` ("frames", "video") is not
    drawn, but still has its say in the crop. Raises BadVideo, and DataError for an unknown fit or backend.
    """
    views = {"frames": tokeniser} | ({"video": decoder} if decoder else {})
    drawn = {name: view for name, view in views.items() if name not in skip}
    stacks = {name: blank((view.num_frames, 3, view.height, view.width)) for name, view in drawn.items()}
    sampled = {name: view_times(view, start, duration) for name, view in drawn.items()}
    wanted = sorted(
        (time, name, index) for name, (times, valid) in sampled.items() for index, time in enumerate(times[:valid])
    )
    for looks, picture in decode(source, [time for time, _, _ in wanted], backend) if wanted else ():
        height, width, _ = picture.shape
        placed = dict(zip(views, placements(width, height, tokeniser, decoder, fit)))
        for name, stack in stacks.items():
            indices = [wanted[look][2] for look in looks if wanted[look][1] == name]
            if indices:
                _draw(picture, placed[name], stack, indices)
    counts = {name: valid for name, (_, valid) in sampled.items()}
    for name, stack in stacks.items():
        stack[counts[name] :] = stack[counts[name] - 1]
    return Views(stacks.get("frames"), counts.get("frames", 0), stacks.get("video"), counts.get("video", 0))


def _draw(picture: torch.Tensor, placement: Placement, stack: torch.Tensor, indices: Sequence[int]) -> None:
    """Resize a uint8 (H, W, 3) picture once, and put it into each of the stack's frames at `indices`.

    On uint8 and antialiased this is what transformers' processors do; Pillow's own differs by 1 (where it enlarges, by
    2 in one value of 100,000), and takes four times as long.
    """
    part, place = placement.source, placement.target
    pixels = picture[part.y : part.y + part.height, part.x : part.x + part.width].permute(2, 0, 1)[None]
    # The same result: torch is a third faster on rows that lie one behind the other.
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    size = (place.height, place.width)
    resized = interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False)
    inside = resized[0, :, max(0, -place.y) :, max(0, -place.x) :]
    for index in indices:  # one by one: to index with a list costs a fifth of the resize
        free = stack[index, :, max(0, place.y) : place.y + place.height, max(0, place.x) : place.x + place.width]
        free.copy_(inside[:, : free.shape[1], : free.shape[2]])


def _largest_inside(box: Box, width: int, height: int) -> Box:
    """The largest rectangle of aspect width : height inside `box`, at its centre."""
    w = max(1, min(box.width, round(box.height * width / height)))
    h = max(1, min(box.height, round(box.width * height / width)))
    return Box(box.x + (box.width - w) // 2, box.y + (box.height - h) // 2, w, h)


def _floor(count: int, stride: int) -> int:
    """The largest k * stride + 1 that is no more than `count`."""
    return (count - 1) // stride * stride + 1
