"""The two views of a clip: few small frames for the tokeniser, many wide frames for the video decoder's loss.

Both views come from one decode. They show the same window of time and, with fit "crop", the same part of the picture.
All functions but `make_views` are arithmetic.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn.functional import interpolate

from data_tools.errors import DataError
from data_tools.streaming.memory import blank
from data_tools.video.decode import Source, decode

FITS = ("crop", "pad")

# Temporal stride of the video VAE, which takes 4k + 1 frames.
VAE_STRIDE = 4

# Tolerance at a clip's end, seconds: some containers round timestamps to milliseconds.
ROUNDING = 1e-3

# Side of a stand-in for a video, pixels: every decoder takes multiples of it.
SMALLEST = 32

# A strip of so many views side by side is resized as a whole; pictures of all other shapes are no longer than that.
MOST_VIEWS = 16

# The draw that puts `window` at the clip's centre.
CENTRE = 0.5


@dataclass(frozen=True)
class View:
    """The frames that one consumer of a clip needs.

    Attributes:
        fps: frames per second.
        num_frames: frames in a full window.
        height: pixels.
        width: pixels.
        stride: the number of valid frames is k * stride + 1.
    """

    fps: float
    num_frames: int
    height: int
    width: int
    stride: int = 1


@dataclass(frozen=True)
class Shape:
    """The views of a sample.

    Attributes:
        seconds: length of the window.
        tokeniser: the view `frames`.
        decoder: the view `video`; None for none.
        stand_in: the view of a black video in the place of `video`, for a sample without the decoder's loss.
    """

    seconds: float
    tokeniser: View
    decoder: View | None
    stand_in: View | None


@dataclass(frozen=True)
class Box:
    """A rectangle in whole pixels; (x, y) is its upper left corner."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Placement:
    """How a frame maps to a view: `source` of the frame is resized to `target` of the view.

    Parts of `target` outside the view are cut off. Parts of the view outside `target` are black.
    """

    source: Box
    target: Box


@dataclass(frozen=True)
class Views:
    """Both views of one window. Frames past the valid ones repeat the last valid frame.

    Attributes:
        frames: uint8 (T, 3, h, w), for the tokeniser.
        frames_valid: number of valid frames; 0 without `frames`.
        video: uint8 (F, 3, H, W), for the decoder's loss.
        video_valid: number of valid frames; 0 without `video`.
    """

    frames: torch.Tensor | None
    frames_valid: int
    video: torch.Tensor | None
    video_valid: int


def tokeniser_view(seconds: float, fps: float, height: int, width: int) -> View:
    """A frame every 1/fps seconds, both ends of the window included: 5 s at 6/s are 31 frames."""
    return View(fps, round(seconds * fps) + 1, height, width)


def decoder_view(seconds: float, fps: float, height: int, width: int, latent_frames: int | None = None) -> View:
    """The most frames of the form 4k + 1 that fit in the window: 5 s at 24/s are 121 frames.

    `latent_frames`, if given, is the largest k + 1.
    """
    frames = _floor(round(seconds * fps) + 1, VAE_STRIDE)
    if latent_frames is not None:
        frames = min(frames, VAE_STRIDE * (latent_frames - 1) + 1)
    return View(fps, frames, height, width, VAE_STRIDE)


def window(duration: float, seconds: float, draw: float) -> float:
    """Start of a window in a clip, in seconds.

    Args:
        duration: of the clip, seconds.
        seconds: length of the window. If the clip is shorter, the window starts at 0.
        draw: in [0, 1); 0.5 is the centre.
    """
    return max(0.0, duration - seconds) * draw


def view_times(view: View, start: float, end_of_clip: float) -> tuple[list[float], int]:
    """Times of a view's frames.

    Args:
        view: the view.
        start: start of the window, seconds.
        end_of_clip: the clip's duration, seconds. Its last frame is shown until then.

    Returns:
        The times in seconds, and how many of the first ones are valid: inside the clip, at least 1, k * stride + 1.
    """
    times = [start + index / view.fps for index in range(view.num_frames)]
    inside = sum(time <= end_of_clip + ROUNDING for time in times)
    return times, _floor(max(inside, 1), view.stride)


def valid_frames(view: View | None, start: float, end_of_clip: float) -> int:
    """The number of a view's frames that are valid (see `view_times`); 0 without a view."""
    return view_times(view, start, end_of_clip)[1] if view else 0


def fit_box(src_w: int, src_h: int, dst_w: int, dst_h: int, fit: str) -> Placement:
    """Fit a frame of src_w × src_h to a view of dst_w × dst_h, centred, keeping the aspect ratio.

    Args:
        fit: "crop" fills the view and cuts off the rest of the frame; "pad" shows the whole frame with black bars.

    Raises:
        DataError: `fit` is unknown.
    """
    source, target = Box(0, 0, src_w, src_h), Box(0, 0, dst_w, dst_h)
    if fit == "crop":
        return Placement(_largest_inside(source, dst_w, dst_h), target)
    if fit == "pad":
        return Placement(source, _largest_inside(target, src_w, src_h))
    raise DataError(f"unknown fit '{fit}': choose one of {', '.join(FITS)}")


def cover(source: Box, width: int, height: int) -> Placement:
    """Resize part of a frame to cover the view, then centre-crop; rounds as CLIP's preprocessing does.

    The far ends of a strip, which the crop would cut off, are left out before: else one of 16000 x 1 pixels would have
    billions of them when it is resized. Its picture may be shifted by less than a pixel.
    """
    source = _without_far_ends(source, width, height)
    if source.width * height > source.height * width:
        target_w, target_h = source.width * height // source.height, height
    else:
        target_w, target_h = width, source.height * width // source.width
    return Placement(source, Box(-((target_w - width) // 2), -((target_h - height) // 2), target_w, target_h))


def placements(src_w: int, src_h: int, tokeniser: View, decoder: View | None, fit: str) -> list[Placement]:
    """The placement of a frame in the tokeniser's view and, if given, in the decoder's view.

    With fit "crop" the tokeniser sees the centre of the decoder's crop, so it sees nothing that the decoder does not
    have to draw.
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
    entry: str | None = None,
    padded: Collection[str] = ("frames", "video"),
) -> Views:
    """Both views of one window, from one decode of the clip.

    Args:
        source: the clip.
        duration: as `video.validate` measured it, seconds.
        tokeniser: the view `frames`.
        decoder: the view `video`; None for none.
        start: start of the window, seconds.
        fit: "crop" or "pad" (see `fit_box`).
        backend: "pyav", "torchcodec" or "decord".
        skip: views, of "frames" and "video", that are not drawn. The crop still takes them into account.
        entry: as `video.validate` found it; None if it is not known.
        padded: views, of "frames" and "video", that have all their frames even past the clip's end. Others have the
            valid ones only.

    Raises:
        BadVideo: the clip cannot be decoded.
        DataError: `fit` or `backend` is unknown.
    """
    views = {"frames": tokeniser} | ({"video": decoder} if decoder else {})
    drawn = {name: view for name, view in views.items() if name not in skip}
    sampled = {name: view_times(view, start, duration) for name, view in drawn.items()}
    lengths = {name: view.num_frames if name in padded else sampled[name][1] for name, view in drawn.items()}
    stacks = {name: blank((lengths[name], 3, view.height, view.width)) for name, view in drawn.items()}
    wanted = sorted(
        (time, name, index) for name, (times, valid) in sampled.items() for index, time in enumerate(times[:valid])
    )
    for looks, picture in decode(source, [time for time, _, _ in wanted], backend, entry) if wanted else ():
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


def one_shape(seconds: float, tokeniser: View, decoder: View | None) -> Shape:
    """The shape of all samples. A stand-in has one small frame."""
    black = decoder and replace(decoder, num_frames=1, height=SMALLEST, width=SMALLEST)
    return Shape(seconds, tokeniser, decoder, black)


def stand_in(shape: Shape) -> Views:
    """Black views for a sample that has no picture: one frame for the tokeniser, a small video for the decoder.

    They keep the ranks of a run alike: each runs the same modules, whatever its samples are.
    """
    frame = blank((1, 3, shape.tokeniser.height, shape.tokeniser.width))
    return Views(frame, 1, black(shape.stand_in) if shape.stand_in else None, 1 if shape.stand_in else 0)


def black(view: View) -> torch.Tensor:
    """A black video, uint8 (F, 3, H, W)."""
    return blank((view.num_frames, 3, view.height, view.width))


def _draw(picture: torch.Tensor, placement: Placement, stack: torch.Tensor, indices: Sequence[int]) -> None:
    """Resize a uint8 (H, W, 3) picture once, and write it to the stack's frames at `indices`.

    transformers' processors resize the same way (uint8, antialiased bicubic). Pillow's result differs by at most 1 (by
    2 in one value of 100,000 when it enlarges) and takes four times as long.
    """
    part, place = placement.source, placement.target
    pixels = picture[part.y : part.y + part.height, part.x : part.x + part.width].permute(2, 0, 1)[None]
    # Same result, a third faster: torch resizes contiguous rows faster.
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    size = (place.height, place.width)
    resized = interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False)
    inside = resized[0, :, max(0, -place.y) :, max(0, -place.x) :]
    for index in indices:  # one by one: indexing with a list would add a fifth to the time
        free = stack[index, :, max(0, place.y) : place.y + place.height, max(0, place.x) : place.x + place.width]
        free.copy_(inside[:, : free.shape[1], : free.shape[2]])


def _largest_inside(box: Box, width: int, height: int) -> Box:
    """The largest rectangle of aspect ratio width : height inside `box`, centred."""
    w = max(1, min(box.width, round(box.height * width / height)))
    h = max(1, min(box.height, round(box.width * height / width)))
    return Box(box.x + (box.width - w) // 2, box.y + (box.height - h) // 2, w, h)


def _without_far_ends(box: Box, width: int, height: int) -> Box:
    """The middle of a strip, as long as `MOST_VIEWS` views of width : height; the whole of any other box."""
    w = max(1, MOST_VIEWS * box.height * width // height)
    h = max(1, MOST_VIEWS * box.width * height // width)
    left, top = max(0, (box.width - w) // 2), max(0, (box.height - h) // 2)  # as much at both ends: same centre
    return Box(box.x + left, box.y + top, box.width - 2 * left, box.height - 2 * top)


def _floor(count: int, stride: int) -> int:
    """The largest k * stride + 1 that is at most `count`."""
    return (count - 1) // stride * stride + 1
