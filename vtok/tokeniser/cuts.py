"""``vtok-cuts``: ``vtok`` with a further key frame where the picture changes at once, as at a cut.

A residual to a key frame of another scene says little, and one pooled token cannot hold the new scene. Here the frame
of such a step gets S spatial tokens of its own, and the residuals behind it are those to this frame. A video with k key
frames costs ``k * S + M`` tokens, with the M of ``vtok``. A video without a cut has the tokens of ``vtok``. With
``K = max_key_frames`` the indices are

    0 ... S - 1                 the first frame
    S ... K * S - 1             further key frames in the order of time, S each; the last ones may be missing
    K * S ... K * S + M - 1     one motion token a step

The motion token of a cut's step is the residual to the key frame before. So it tells when the cut is.

A sampled video has one key frame. The number of key frames would have to be known before the motion tokens, which tell
where a cut is, and neither a prompt nor a head says it. Tokens of true videos keep all their key frames.
"""

import torch.nn.functional as F
from torch import Tensor

from vtok.config import VTokConfig
from vtok.devices import indices_on_device
from vtok.feature_extractor import FeatureExtractor
from vtok.spatial_encoder import pool_grid
from vtok.tokeniser.base import Place
from vtok.tokeniser.vtok import VTokTokeniser

CELLS = 4  # along a side of the pictures that are compared


def changes(before: Tensor, after: Tensor) -> Tensor:
    """Returns how much n pictures changed: 1 minus the cosine between all features of a pair, (n,), fp32.

    Args:
        before, after: Features (n, h, w, d) of the n pairs, of any dtype.
    """
    one, other = (pool_grid(features.float(), CELLS).flatten(1) for features in (before, after))
    return 1 - F.cosine_similarity(one, other, dim=1)


def cut_steps(changed: list[float], threshold: float, most: int) -> list[int]:
    """Returns the steps at which there is a cut, ascending.

    They are those with the largest changes; of equal ones the earliest.

    Args:
        changed: The change of each step from the sampled frame before it (:func:`changes`).
        threshold: The least change of a cut.
        most: The most cuts.

    >>> cut_steps([0.1, 0.6, 0.1, 0.9, 0.7], threshold=0.5, most=2)
    [3, 4]
    """
    found = [step for step, change in enumerate(changed) if change >= threshold]
    return sorted(sorted(found, key=lambda step: -changed[step])[:most])


class CutTokeniser(VTokTokeniser):
    """Turns frames into k * S + M tokens, 1 <= k <= K. The host waits once for the features, to see where cuts are."""

    def __init__(self, config: VTokConfig, feature_extractor: FeatureExtractor | None = None):
        super().__init__(config, feature_extractor)
        assert config.max_key_frames is not None  # the configuration demands it for this strategy
        self.max_key_frames = config.max_key_frames

    @property
    def num_cells(self) -> int:
        return self.spatial_places

    @property
    def spatial_places(self) -> int:
        return self.max_key_frames * self.config.num_spatial_tokens

    def place(self, index: int) -> Place:
        split = self.spatial_places
        return Place("spatial", cell=index) if index < split else Place("motion", time=index - split)

    def sampled(self, num_tokens: int) -> list[int]:
        first = range(min(num_tokens, self.config.num_spatial_tokens))
        return [*first, *range(self.spatial_places, self.spatial_places + num_tokens - len(first))]

    def key_steps(self, encoded: Tensor, rows: list[list[int]]) -> list[list[int]]:
        most = self.max_key_frames - 1
        if encoded.is_meta:  # a plan, which sees no features, counts the most
            return [list(range(min(most, len(own) - 1))) for own in rows]
        before, after = indices_on_device(
            encoded.device, [row for own in rows for row in own[:-1]], [row for own in rows for row in own[1:]]
        )
        changed = iter(changes(encoded[before], encoded[after]).tolist())
        return [cut_steps([next(changed) for _ in own[1:]], self.config.cut_threshold, most) for own in rows]

    def spatial(
        self, encoded: Tensor, rows: list[list[int]], key_steps: list[list[int]]
    ) -> tuple[Tensor, list[int] | None]:
        own_keys = [[own[0], *(own[step + 1] for step in steps)] for own, steps in zip(rows, key_steps)]
        key_rows, clips, numbers = indices_on_device(
            encoded.device,
            [row for keys in own_keys for row in keys],
            [clip for clip, keys in enumerate(own_keys) for _ in keys],
            [number for keys in own_keys for number in range(len(keys))],
        )
        pooled = self.spatial_encoder.pool(encoded[key_rows])
        spatial = pooled.new_zeros(len(rows), self.max_key_frames, *pooled.shape[1:])
        spatial[clips, numbers] = pooled
        return spatial.flatten(1, 2), [len(keys) * pooled.shape[1] for keys in own_keys]
