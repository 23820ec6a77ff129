"""Chooses buckets for a dataset, from its manifest alone.

Candidates are common aspect ratios x lengths in steps of a quarter x sizes in steps of a half, as large as the budget
of latent tokens allows. From them, one bucket after another is dropped: the one that the clips miss least, until few
are left and each has its share of the clips.
"""

from collections.abc import Sequence

import numpy as np

from data_tools.buckets.nearest import Bucket, distances, has_video, latent_frames_of
from data_tools.video.views import VAE_STRIDE

ASPECTS = (9 / 21, 9 / 16, 2 / 3, 3 / 4, 1.0, 4 / 3, 3 / 2, 16 / 9, 21 / 9)  # width / height
LONGER = 1.25  # ratio of neighbouring lengths
HALVINGS = 4  # sizes of a candidate's shape
MOST = 24  # buckets
LEAST_SHARE = 0.005  # of the clips, in a bucket
SEEN = 2048  # clips that the choice looks at, evenly spaced


def choose_buckets(
    facts: np.ndarray, largest: Bucket, seconds: float, fps: float, fit: str, side: int = 16, budget: int | None = None
) -> list[Bucket]:
    """Chooses at most `MOST` buckets, sorted by aspect ratio, length and size.

    Args:
        facts: `shards.ROW` (N,) of the dataset.
        largest: limits the pixels of a frame, and the frames.
        seconds: length of a window at most.
        fps: of the videos.
        fit: "crop" or "pad".
        side: pixels of a latent token; heights and widths are multiples of it.
        budget: tokens of a bucket at most; those of `largest` if omitted.

    Returns:
        The buckets; `largest` alone if no sample has a video.
    """
    clips = facts[has_video(facts)]
    if not len(clips):
        return [largest]
    clips = clips[np.unique(np.linspace(0, len(clips) - 1, SEEN).astype(int))]
    own = latent_frames_of(clips["duration"], seconds, fps).clip(max=largest.latent_frames)
    found = candidates(largest, _lengths(int(own.min()), int(own.max())), side, budget or largest.tokens(side))
    kept = _thinned(distances(clips, found, seconds, fps, fit)[:, : len(found)])
    return sorted((found[number] for number in kept), key=lambda one: (one.width / one.height, one.frames, one))


def candidates(largest: Bucket, lengths: Sequence[int], side: int, budget: int) -> list[Bucket]:
    """All buckets of these latent frames with at most `budget` tokens, and at most the pixels of `largest`."""
    found = set()
    for length in lengths:
        whole = min(budget // length, Bucket(largest.height, largest.width, 1).tokens(side))
        shapes = {
            _sides(aspect, whole >> halved) for aspect in ASPECTS for halved in range(HALVINGS) if whole >> halved
        }
        found |= {Bucket(rows * side, columns * side, VAE_STRIDE * (length - 1) + 1) for rows, columns in shapes}
    return sorted(found)


def _sides(aspect: float, tokens: int) -> tuple[int, int]:
    """Rows and columns of about this aspect ratio, with at most `tokens` in all."""
    rows = max(1, min(tokens, round((tokens / aspect) ** 0.5)))
    return rows, max(1, min(round(rows * aspect), tokens // rows))


def _lengths(shortest: int, longest: int) -> list[int]:
    """Latent frames from the shortest to the longest, in steps of a quarter, but at least 1."""
    found = [shortest]
    while found[-1] < longest:
        found.append(min(longest, max(found[-1] + 1, round(found[-1] * LONGER))))
    return found


def _thinned(far: np.ndarray) -> list[int]:
    """The columns that are left of distances (n, B): dropping one costs what its clips are farther from the next."""
    kept = sorted({*far.argmin(axis=1).tolist()})
    while True:
        far_kept = far[:, kept]
        nearest = far_kept.argmin(axis=1)
        counts = np.bincount(nearest, minlength=len(kept))
        if len(kept) == 1 or (len(kept) <= MOST and counts.min() >= LEAST_SHARE * len(far)):
            return kept
        first, second = np.partition(far_kept, 1, axis=1)[:, :2].T
        lost = np.bincount(nearest, weights=(second - first).round(6), minlength=len(kept))
        if len(kept) <= MOST:  # only those with too few clips
            lost[counts >= LEAST_SHARE * len(far)] = np.inf
        del kept[int(lost.argmin())]
