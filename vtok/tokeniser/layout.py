"""Which frames become which tokens: pure arithmetic on frame numbers.

With the strategy ``vtok``, a video of N frames costs ``S + M`` tokens: the key frame's S spatial tokens, and M motion
tokens, each of which looks at one later (or, with a key frame in mid-clip, earlier) frame.
"""

import math

from vtok.config import VTokConfig, require


def num_motion_tokens(num_frames: int, config: VTokConfig, fps: float | None = None) -> int:
    """M for ``num_frames`` frames, by stride ``(N - 1) // stride`` or by rate ``ceil((N - 1) * r / fps)``.

    Args:
        num_frames: N >= 1.
        config: gives the rule.
        fps: frames per second of these frames; ``config.fps`` if omitted. Only the rate rule uses it.

    The paper's Table 5 calls r "frames per motion token", but its counts are those of r tokens per second.
    """
    require(num_frames >= 1, f"a video needs at least one frame, got {num_frames}")
    if config.stride is not None:
        return (num_frames - 1) // config.stride
    rate, fps = config.motion_tokens_per_second, fps or config.fps
    require(rate <= fps, f"{rate:g} motion tokens per second need at least that many frames per second, got {fps:g}")
    # The small slack keeps (N - 1) * r / fps from rounding up past an exact integer.
    return math.ceil((num_frames - 1) * rate / fps - 1e-9)


def require_key_frame(key: int, num_frames: int) -> None:
    """Raise :class:`ConfigError` unless ``key`` is one of the video's frames."""
    require(0 <= key < num_frames, f"key_frame_idx {key} is outside the video's {num_frames} frames")


def evenly_spaced(num_frames: int, count: int) -> list[int]:
    """``count`` of ``num_frames`` frames, the first and the last among them; some twice in a shorter video."""
    return [math.floor(i * (num_frames - 1) / max(count - 1, 1) + 0.5) for i in range(count)]


def motion_frames(
    num_frames: int, config: VTokConfig, fps: float | None = None, key_frame_idx: int | None = None
) -> list[int]:
    """The frame each motion token looks at, ascending; length :func:`num_motion_tokens`.

    Token i looks at the frame nearest to ``i / r`` seconds (or frame ``i * stride``), at most the last. With a key
    frame other than the first, the grid 0 ... M loses the point nearest to the key frame instead of point 0, so that
    the number of tokens stays and the key frame is never its own motion token.
    """
    key = config.key_frame_idx if key_frame_idx is None else key_frame_idx
    require_key_frame(key, num_frames)
    step = config.stride or (fps or config.fps) / config.motion_tokens_per_second
    count = num_motion_tokens(num_frames, config, fps)
    grid = [min(math.floor(i * step + 0.5), num_frames - 1) for i in range(count + 1)]
    grid.remove(min(grid, key=lambda frame: abs(frame - key)))
    # Two points can round to the last frame; if that is the key frame, the one left looks at its neighbour.
    neighbour = key - 1 if key > 0 else key + 1
    return [neighbour if frame == key else frame for frame in grid]
