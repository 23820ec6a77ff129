"""Render a scene to frames.

Each shape is supersampled inside its bounding box. Its edge is a linear ramp one sample wide.
"""

import numpy as np

from data_tools.shapes.scene import Scene, Thing

FINER = 2  # samples per pixel and axis
REACH = 0.9  # largest distance of a corner from the centre, in sides: the tip of the triangle


def render(scene: Scene, frames: int, size: int) -> np.ndarray:
    """The clip as uint8 RGB (frames, size, size, 3)."""
    return render_at(scene, np.linspace(0, 1, frames), size)


def render_at(scene: Scene, t: np.ndarray, size: int, finer: int = 1) -> np.ndarray:
    """The clip's frames at times (F,) in 0..1 as uint8 RGB (F, size, size, 3).

    Args:
        scene: What the clip shows.
        t: The times.
        size: Side in pixels.
        finer: The frames are rendered at this multiple of the size and averaged down. For very small frames.
    """
    if finer > 1:
        fine = render_at(scene, t, finer * size).astype(np.float32)
        return (fine.reshape(len(t), size, finer, size, finer, 3).mean((2, 4)) + 0.5).astype(np.uint8)
    picture = np.repeat(_background(scene, size)[None], len(t), axis=0)
    for thing in scene.things:
        _draw(picture, thing, t)
    return (picture + 0.5).astype(np.uint8)


def _draw(picture: np.ndarray, thing: Thing, t: np.ndarray) -> None:
    """Draw a thing onto `picture`, float32 (frames, size, size, 3), in place, at times `t` (frames,) in 0..1."""
    size = picture.shape[1]
    centres, sides = size * thing.centres(t), size * thing.sides(t)
    box = min(size, int(2 * REACH * sides.max()) + 2)
    corners = np.clip(np.round(centres - box / 2).astype(int), 0, size - box)
    samples = (np.arange(box * FINER, dtype=np.float32) + 0.5) / FINER
    distinct = 1 if np.ptp(centres) == np.ptp(sides) == 0 else len(t)  # a still shape is sampled once
    from_centre = (corners - centres)[:distinct, :, None].astype(np.float32) + samples
    x, y = from_centre[:, 0, None, :], from_centre[:, 1, :, None]
    inside = np.clip(FINER * _depth(thing.shape, x, y, sides[:distinct, None, None].astype(np.float32)) + 0.5, 0, 1)
    cover = inside.reshape(distinct, box, FINER, box, FINER).mean(axis=(2, 4), dtype=np.float32)
    cover = cover[..., None] * thing.opacities(t)[:, None, None, None].astype(np.float32)
    colours = thing.colours(t).astype(np.float32)
    for frame, (column, row) in enumerate(corners):
        under = picture[frame, row : row + box, column : column + box]
        under += cover[frame] * (colours[frame] - under)


def _depth(shape: str, x: np.ndarray, y: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Signed distance of each point inside the edge of a shape of area side²; negative outside.

    x, y are relative to the shape's centre of mass.
    """
    if shape == "circle":
        return side / np.float32(np.pi**0.5) - np.hypot(x, y)
    if shape == "square":
        return side / 2 - np.maximum(np.abs(x), np.abs(y))
    # Equilateral triangle, tip upwards. Its three edges touch the inscribed circle of radius side / 27^¼.
    slanted = np.abs(x) * np.float32(3**0.5 / 2) - y / 2
    return side / np.float32(27**0.25) - np.maximum(slanted, y)


def _background(scene: Scene, size: int) -> np.ndarray:
    """A linear gradient between two dim colours, float32 (size, size, 3)."""
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    along = np.cos(scene.slope) * grid[None, :] + np.sin(scene.slope) * grid[:, None]
    share = np.clip(along + 0.5, 0, 1).astype(np.float32)[..., None]
    first, second = np.array(scene.background, np.float32)
    return first + share * (second - first)
