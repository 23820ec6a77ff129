"""Scene → frames. Within its box each shape is sampled on a finer grid, with edges one sample soft."""

import numpy as np

from data_tools.shapes.scene import Scene, Thing

FINER = 2  # samples per pixel and axis
REACH = 0.9  # the farthest corner of a shape from its centre, in sides: the triangle's tip


def render(scene: Scene, frames: int, size: int) -> np.ndarray:
    """The clip, uint8 RGB (frames, size, size, 3)."""
    t = np.linspace(0, 1, frames)
    picture = np.repeat(_background(scene, size)[None], frames, axis=0)
    for thing in scene.things:
        _draw(picture, thing, t)
    return (picture + 0.5).astype(np.uint8)


def _draw(picture: np.ndarray, thing: Thing, t: np.ndarray) -> None:
    """Put a thing onto the picture, float32 (frames, size, size, 3)."""
    size = picture.shape[1]
    centres, sides = size * thing.centres(t), size * thing.sides(t)
    box = min(size, int(2 * REACH * sides.max()) + 2)
    corners = np.clip(np.round(centres - box / 2).astype(int), 0, size - box)
    samples = (np.arange(box * FINER, dtype=np.float32) + 0.5) / FINER
    distinct = 1 if np.ptp(centres) == np.ptp(sides) == 0 else len(t)
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
    """How deep inside the edge each point lies, of a shape of area side² around its centre of mass; below 0 outside."""
    if shape == "circle":
        return side / np.float32(np.pi**0.5) - np.hypot(x, y)
    if shape == "square":
        return side / 2 - np.maximum(np.abs(x), np.abs(y))
    # Equilateral, tip upwards: three edges at 120° from each other, at the radius of the inscribed circle.
    slanted = np.abs(x) * np.float32(3**0.5 / 2) - y / 2
    return side / np.float32(27**0.25) - np.maximum(slanted, y)


def _background(scene: Scene, size: int) -> np.ndarray:
    """A fade between two dim colours, float32 (size, size, 3)."""
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    along = np.cos(scene.slope) * grid[None, :] + np.sin(scene.slope) * grid[:, None]
    share = np.clip(along + 0.5, 0, 1).astype(np.float32)[..., None]
    first, second = np.float32(scene.background)
    return first + share * (second - first)
