"""Which frames become which tokens: pure arithmetic on frame numbers.

With the strategy ``vtok``, a video of N frames costs ``S + M`` tokens: S spatial tokens of the key frame and M motion
tokens. Each motion token looks at one other frame.
"""

import math
from collections.abc import Sequence

from vtok.config import ConfigError, VTokConfig, require


def num_motion_tokens(num_frames: int, config: VTokConfig, fps: float | None = None) -> int:
    """Returns M: ``(N - 1) // stride`` by stride, ``ceil((N - 1) * r / fps)`` by rate.

    The paper's Table 5 calls r "frames per motion token", but its counts fit r tokens per second.

    Args:
        num_frames: N, at least 1.
        config: Names the rule.
        fps: Frames per second. ``config.fps`` if omitted. Only the rate rule uses it.

    Raises:
        ConfigError: There is no frame, or r exceeds ``fps``.
    """
    require(num_frames >= 1, f"a video needs at least one frame, got {num_frames}")
    rate, fps = config.motion_tokens_per_second, fps or config.fps
    if rate is None:
        return (num_frames - 1) // config.stride
    require(rate <= fps, f"{rate:g} motion tokens per second need at least that many frames per second, got {fps:g}")
    # The slack absorbs rounding errors: without it, (N - 1) * r / fps could round up past an exact integer.
    return math.ceil((num_frames - 1) * rate / fps - 1e-9)


def require_key_frame(key: int, num_frames: int) -> None:
    """Raises :class:`ConfigError` unless ``key`` is one of the video's frames."""
    require(0 <= key < num_frames, f"key_frame_idx {key} is outside the video's {num_frames} frames")


def evenly_spaced(num_frames: int, count: int) -> list[int]:
    """Returns ``count`` evenly spaced frames, from the first to the last. A shorter video repeats some."""
    return [math.floor(i * (num_frames - 1) / max(count - 1, 1) + 0.5) for i in range(count)]


def motion_frames(
    num_frames: int, config: VTokConfig, fps: float | None = None, key_frame_idx: int | None = None
) -> list[int]:
    """Returns the frame of each motion token, ascending. Their number is :func:`num_motion_tokens`.

    Token i looks at the frame nearest to ``i / r`` seconds (by stride: frame ``i * stride``), at most the last frame.
    The grid 0 ... M loses the point nearest to the key frame. So the number of tokens does not depend on the key frame,
    and no motion token looks at it.

    Args:
        num_frames: Frames of the video.
        config: Names the rule.
        fps: Frames per second. ``config.fps`` if omitted.
        key_frame_idx: The key frame. ``config.key_frame_idx`` if omitted.

    Raises:
        ConfigError: The key frame is not in the video, or ``config`` says ``detect`` and no key frame is given.
    """
    key = config.key_frame_idx if key_frame_idx is None else key_frame_idx
    if isinstance(key, str):
        raise ConfigError(f"key_frame_idx is {key!r}: the motion frames need the index that was detected")
    require_key_frame(key, num_frames)
    step = config.frames_per_motion_token(fps)
    count = num_motion_tokens(num_frames, config, fps)
    grid = [min(math.floor(i * step + 0.5), num_frames - 1) for i in range(count + 1)]
    grid.remove(min(grid, key=lambda frame: abs(frame - key)))
    # Two points can round to the last frame. If that is the key frame, the remaining one moves to the frame beside it.
    neighbour = key - 1 if key > 0 else key + 1
    return [neighbour if frame == key else frame for frame in grid]


def references(frames: list[int], key: int, previous: bool = False, key_steps: Sequence[int] = ()) -> list[int]:
    """Returns what the residual of each step is taken to: 0 for the key frame, i + 1 for step i.

    By default that is the last key frame before the step. The step of a further key frame itself refers to the one
    before, so its token tells what changed there.

    With ``previous`` it is the neighbouring step on the key frame's side, or the key frame. So the residuals from the
    key frame up to a step add up to that step's residual to the key frame.

    Args:
        frames: The frame of each step, ascending.
        key: The key frame.
        previous: Whether residuals are those to the neighbour.
        key_steps: Steps whose frames are further key frames, ascending, all behind the key frame.
    """
    if not previous:
        return [max((start + 1 for start in key_steps if start < step), default=0) for step in range(len(frames))]
    before = sum(frame < key for frame in frames)  # steps before the key frame
    return [step + 2 if step < before - 1 else 0 if step <= before else step for step in range(len(frames))]
