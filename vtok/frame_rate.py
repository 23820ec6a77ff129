"""Shows videos at another frame rate."""

from torch import Tensor


def at_rate(videos: Tensor, own_fps: float, fps: float, seconds: float) -> Tensor:
    """Shows videos at another frame rate: at each time, the frame that is then on the screen.

    Args:
        videos: (B, F, ...) at ``own_fps`` frames per second, the first frame at time 0.
        own_fps: Their rate.
        fps: The wanted rate.
        seconds: Their length.

    Returns:
        (B, round(seconds * fps), ...).
    """
    shown = [min(videos.shape[1] - 1, int(frame * own_fps / fps + 1e-6)) for frame in range(round(seconds * fps))]
    return videos[:, shown]
