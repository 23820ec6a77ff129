"""From pixels to shapes: estimate the background, segment the shapes, track them.

No code is shared with drawing.py. The only assumptions are a smooth, constant background and shapes whose colours
differ from it. Noise and contrast are estimated per clip. Colours are RGB in 0..255; positions are x, y in pixels.
"""

from dataclasses import dataclass

import numpy as np

from data_tools.shapes.vocabulary import COLOURS

ROUNDS = 10  # iterations of the background fit
STANDS_OUT = 6.5  # detection threshold, standard deviations of the noise; noise alone reaches about 5 in a clip
SHARE = 0.3  # least contrast of a shape, as a fraction of the clip's contrast
LEAST = 2.0  # lower bound of the noise estimate, grey levels
SMALLEST = 12  # least area of a shape in a picture 64 pixels wide, pixels
NOISY = 15.0  # noise above which frames are smoothed more, grey levels
ALIKE = 100.0  # largest distance between an observed colour and the named colour it may be


@dataclass(frozen=True)
class Blob:
    """A shape in one picture.

    Attributes:
        centre: (2,).
        area: pixels.
        colour: observed RGB, (3,).
        contrast: colour minus background, (3,).
        third: |E[z³]| / area^1.5, with z = x + iy relative to the centre.
        fourth: |E[z⁴]| / area². Blur by a rotationally symmetric kernel changes neither moment.
    """

    centre: np.ndarray
    area: float
    colour: np.ndarray
    contrast: np.ndarray
    third: float
    fourth: float


class Clip:
    """A clip with its background removed.

    Args:
        frames: uint8 RGB (F, H, W, 3).
    """

    def __init__(self, frames: np.ndarray):
        pixels = np.moveaxis(np.asarray(frames, np.float32), -1, 1)
        self.width = pixels.shape[-1]
        self.background = _background(pixels.mean(axis=0))
        self.difference = pixels - self.background
        noise = _spread(np.diff(self.difference, axis=0)) / 2**0.5 if len(pixels) > 1 else 0.0
        self.smoothing = 2.0 if noise > NOISY else 1.0  # sigma, pixels

    def windows(self, count: int) -> list[list[Blob]]:
        """The shapes in each of `count` equal parts of the clip, each averaged over time."""
        parts = np.array_split(self.difference, min(count, len(self.difference)))
        return self._blobs(np.stack([part.mean(axis=0) for part in parts]))

    def track(self, colour: str) -> np.ndarray | None:
        """Position (F, 2) of the shape of a named colour in each frame; None if it is missing in over 30 % of them.

        Gaps are interpolated.
        """
        places = np.full((len(self.difference), 2), np.nan)
        for frame, blobs in enumerate(self._blobs(self.difference)):
            likeness = [unlikeness(blob.colour, colour) for blob in blobs]
            if likeness and min(likeness) < ALIKE:
                places[frame] = blobs[int(np.argmin(likeness))].centre
        seen = np.flatnonzero(~np.isnan(places[:, 0]))
        if len(seen) < max(2, 0.7 * len(places)):
            return None
        return np.stack([np.interp(np.arange(len(places)), seen, places[seen, axis]) for axis in (0, 1)], axis=1)

    def _blobs(self, difference: np.ndarray) -> list[list[Blob]]:
        """The shapes in each of several pictures, (N, 3, H, W)."""
        smooth = _smooth(difference, self.smoothing)
        strength = np.linalg.norm(smooth, axis=1)
        contrast = np.percentile(strength.max(axis=(1, 2)), 90)
        threshold = max(STANDS_OUT * max(_spread(smooth), LEAST), SHARE * contrast)
        found = []
        for picture, strong, labels in zip(smooth, strength, _components(strength > threshold)):
            sizes = np.bincount(labels.ravel())
            large = [
                label
                for label in np.flatnonzero(sizes).tolist()
                if label and sizes[label] >= SMALLEST * (self.width / 64) ** 2
            ]
            found.append([self._blob(picture, strong, labels, label) for label in large])
        return found

    def _blob(self, picture: np.ndarray, strong: np.ndarray, labels: np.ndarray, label: int) -> Blob:
        """The blob of one component. `picture` is (3, H, W); `strong` and `labels` are (H, W)."""
        mask = labels == label
        core = mask & (strong >= 0.8 * np.percentile(strong[mask], 90))
        contrast = picture[:, core].mean(axis=1)
        colour = contrast + self.background[:, core].mean(axis=1)
        near = _grown(mask, 3) & ((labels == 0) | mask)
        y, x = np.nonzero(near)
        weight = contrast @ picture[:, near] / (contrast @ contrast)  # 1 inside, 0 outside
        area = weight.sum()
        centre = np.array([weight @ x, weight @ y]) / area
        z = (x - centre[0]) + 1j * (y - centre[1])
        third, fourth = (abs(weight @ z**n) / area ** (1 + n / 2) for n in (3, 4))
        return Blob(centre, float(area), colour, contrast, third, fourth)


def unlikeness(observed: np.ndarray, name: str) -> float:
    """Distance of an observed colour to the nearest version of a named one, at 0.5 to 1.05 of its contrast to grey."""
    grey = np.full(3, 127.5)
    whole = np.array(COLOURS[name]) - grey
    contrast = np.clip((observed - grey) @ whole / (whole @ whole), 0.5, 1.05)
    return float(np.linalg.norm(observed - grey - contrast * whole))


def _background(picture: np.ndarray) -> np.ndarray:
    """Robust quadratic fit in x and y to a picture (3, H, W), float32; shapes are outliers."""
    height, width = picture.shape[1:]
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y]).reshape(6, -1)
    values = picture.reshape(3, -1).astype(np.float64)
    fitted = np.median(values, axis=1, keepdims=True)
    for _ in range(ROUNDS):
        error = np.linalg.norm(values - fitted, axis=0)
        weight = np.clip(1 - (error / (4 * np.median(error) + 1)) ** 2, 0, None) ** 2  # Tukey's biweight
        weighted = basis * weight
        fitted = np.linalg.solve(weighted @ basis.T + 1e-6 * np.eye(6), weighted @ values.T).T @ basis
    return fitted.reshape(picture.shape).astype(np.float32)


def _spread(values: np.ndarray) -> float:
    """Robust standard deviation around 0: the scaled median absolute value."""
    return float(np.median(np.abs(values)) / 0.6745)


def _smooth(pictures: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur of the last two axes."""
    for axis in (-1, -2):
        place = np.arange(pictures.shape[axis])
        kernel = np.exp(-((place[:, None] - place) ** 2) / (2 * sigma**2)).astype(np.float32)
        kernel /= kernel.sum(axis=1, keepdims=True)
        pictures = pictures @ kernel.T if axis == -1 else kernel @ pictures
    return pictures


def _components(mask: np.ndarray) -> np.ndarray:
    """Connected components of masks (N, H, W): a label above 0 for each component of each mask, 0 outside."""
    labels = np.where(mask, np.arange(1, mask[0].size + 1, dtype=np.int32).reshape(mask.shape[1:]), 0)
    while True:
        spread = labels.copy()
        for axis in (1, 2):
            before = (slice(None),) * axis
            low, high = (*before, slice(None, -1)), (*before, slice(1, None))
            np.maximum(spread[low], spread[high], out=spread[low])
            np.maximum(spread[high], spread[low], out=spread[high])
        spread *= mask
        if (spread == labels).all():
            return labels
        labels = spread


def _grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The mask (H, W) dilated by `pixels`, 4-connected."""
    for _ in range(pixels):
        padded = np.pad(mask, 1)
        mask = mask | padded[2:, 1:-1] | padded[:-2, 1:-1] | padded[1:-1, 2:] | padded[1:-1, :-2]
    return mask
