"""The nearest bucket of a sample.

A bucket is the shape of a video: a size and a number of frames. Samples without a video to be drawn, such as texts,
have a bucket of their own, the last one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data_tools.errors import DataError
from data_tools.shards import ShardReader
from data_tools.streaming.grouping import TOKENS_PER_WORD
from data_tools.streaming.mixture import Mixture
from data_tools.video.views import ROUNDING, VAE_STRIDE

# Weights of a distance, where cropping and cutting have weight 1.
UNFILLED = 4.0  # enlarging pictures, and repeating the last frame
SHRUNK = 0.1  # showing fewer pixels than the clip has

# Of a text alone: what its tar members take beside the text, and typical bytes of a token.
TAR_BYTES = 2048
BYTES_PER_TOKEN = 4

# Distance of a sample without a video to all other buckets: it fits none, yet it may fill up a chunk.
NO_VIDEO = 100.0

WRITTEN = re.compile(r"(\d+)x(\d+)x(\d+(?:\.\d+)?)")


class Bucket(NamedTuple):
    """The shape of a video: height and width in pixels, and 4k + 1 frames."""

    height: int
    width: int
    frames: int

    @property
    def latent_frames(self) -> int:
        return (self.frames - 1) // VAE_STRIDE + 1

    def seconds(self, fps: float) -> float:
        """From the first frame to the last."""
        return (self.frames - 1) / fps

    def tokens(self, side: int) -> int:
        """Tokens of the video, each of `side` x `side` pixels of a latent frame."""
        return self.latent_frames * (self.height // side) * (self.width // side)

    def written(self, fps: float) -> str:
        """The bucket as settings name it: HEIGHTxWIDTHxSECONDS, with as few digits as `read_bucket` needs."""
        texts = (f"{self.height}x{self.width}x{round(self.seconds(fps), digits):g}" for digits in range(9))
        return next(text for text in texts if read_bucket(text, fps) == self)


def read_bucket(text: str, fps: float) -> Bucket:
    """The bucket of HEIGHTxWIDTHxSECONDS: the most frames 4k + 1 that fit. An image has 0 seconds.

    Raises:
        DataError: the text is of another form.
    """
    found = WRITTEN.fullmatch(text)
    if not found or not int(found[1]) or not int(found[2]):
        raise DataError(f"a bucket is HEIGHTxWIDTHxSECONDS, such as 320x576x5 (x0 for images), not {text!r}")
    return Bucket(int(found[1]), int(found[2]), round(float(found[3]) * fps) // VAE_STRIDE * VAE_STRIDE + 1)


def latent_frames_of(duration: np.ndarray, seconds: float, fps: float) -> np.ndarray:
    """Latent frames of each clip's longest window, int64 (n,).

    Args:
        duration: of the clips, seconds, (n,).
        seconds: length of a window at most.
        fps: of the videos.
    """
    span = np.minimum(duration.astype(np.float64) + ROUNDING, seconds)
    return np.floor(span * fps + 1e-6).astype(np.int64) // VAE_STRIDE + 1


def text_tokens(facts: np.ndarray) -> np.ndarray:
    """Estimated tokens of each sample's text, float64 (n,): by the words of captions, by the bytes of texts alone."""
    alone = np.maximum(facts["length"].astype(np.float64) - TAR_BYTES, 0) / BYTES_PER_TOKEN
    return np.where(facts["frames"] == 0, alone, TOKENS_PER_WORD * facts["words"])


def has_video(facts: np.ndarray) -> np.ndarray:
    """Whether each sample has a video or image to be drawn, with a caption that describes it, bool (n,)."""
    return (facts["frames"] > 0) & (facts["words"] > 0)


def distances(facts: np.ndarray, buckets: Sequence[Bucket], seconds: float, fps: float, fit: str) -> np.ndarray:
    """How far each sample is from each bucket: a sum of natural logarithms, so that ratios count.

    Cropping counts log(whole / kept area), with fit "pad" the black bars. Cutting counts log(own / kept latent frames).
    Enlarging and repeating frames, which compute what is not there, count four times as much. Shrinking counts a
    tenth, so of two buckets that a clip fills alike it takes the larger.

    Args:
        facts: `shards.ROW` (n,).
        buckets: B buckets.
        seconds: length of a window at most.
        fps: of the buckets' videos.
        fit: "crop" or "pad".

    Returns:
        float64 (n, B + 1). The last column is of samples without a video.

    Raises:
        DataError: the manifest does not know the sizes of frames.
    """
    drawn = has_video(facts)
    if (drawn & (facts["width"] == 0)).any():
        raise DataError("a manifest does not know the sizes of frames: run `vtok-shards index DIR` on its folder")
    # A sample without a video has sides of 0.
    height, width = (np.maximum(facts[side].astype(np.float64), 1)[:, None] for side in ("height", "width"))
    own = latent_frames_of(facts["duration"], seconds, fps)[:, None]
    heights, widths = (np.array([bucket[side] for bucket in buckets], dtype=np.float64) for side in (0, 1))
    kept = np.array([bucket.latent_frames for bucket in buckets])
    across, down = np.log(widths / width), np.log(heights / height)
    scale = np.maximum(across, down) if fit == "crop" else np.minimum(across, down)
    longer = np.log(kept / own)
    found = np.abs(across - down) + np.maximum(-longer, 0) + UNFILLED * np.maximum(longer, 0)
    found += 2 * UNFILLED * np.maximum(scale, 0) + 2 * SHRUNK * np.maximum(-scale, 0)
    found[~drawn] = NO_VIDEO
    # Rounded, since the last digits of a logarithm differ between machines.
    return np.hstack([found.round(6), np.where(drawn, np.inf, 0.0)[:, None]])


@dataclass
class Bucketing:
    """Sorts the samples of a dataset into buckets.

    Attributes:
        reader: the shards.
        buckets: B buckets.
        seconds: length of a window at most.
        fps: of the buckets' videos.
        fit: "crop" or "pad".
        costs: predicted cost of a sample in each bucket, without its text, float64 (B + 1,), in any unit.
        token_cost: predicted cost of a token of text.
    """

    reader: ShardReader | Mixture
    buckets: Sequence[Bucket]
    seconds: float
    fps: float
    fit: str
    costs: np.ndarray
    token_cost: float = 0.0

    def distances(self, rows: np.ndarray) -> np.ndarray:
        """As the function `distances`, (n, B + 1), for the samples at `rows`, int64 (n,)."""
        return distances(self.reader.facts(rows), self.buckets, self.seconds, self.fps, self.fit)

    def text_costs(self, rows: np.ndarray) -> np.ndarray:
        """Predicted costs of the samples' texts, float64 (n,)."""
        return self.token_cost * text_tokens(self.reader.facts(rows))

    def nearest(self, row: int) -> int:
        """The number of a sample's bucket; B for a sample without a video."""
        return int(self.distances(np.array([row]))[0].argmin())
