"""High dynamic range to standard: BT.2100 (PQ or HLG) becomes BT.709.

Light above the reference white of 203 cd/m² (BT.2408) is compressed, not cut off: a smooth curve maps a peak of
1000 cd/m² to full white. Each channel's light is scaled alike, so hues stay.
"""

from functools import cache

import numpy as np
import torch

TRANSFERS = {16: "pq", 18: "hlg"}  # FFmpeg's numbers of transfer characteristics

WHITE = 203.0  # cd/m²
PEAK = 1000.0  # cd/m², also of the display for which HLG is graded
LEVELS = 2**16

# Linear BT.2020 to linear BT.709 (BT.2087).
GAMUT = torch.tensor(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]]
)
LUMINANCE = torch.tensor([0.2627, 0.6780, 0.0593])  # of BT.2020


def tone_mapped(picture: np.ndarray, transfer: str) -> torch.Tensor:
    """An HDR picture as BT.709.

    Args:
        picture: uint16 RGB (H, W, 3), as coded: BT.2020 colours with the transfer applied.
        transfer: "pq" or "hlg".

    Returns:
        uint8 RGB (H, W, 3).
    """
    light = _linear(transfer)[torch.from_numpy(picture.astype(np.int32))]
    if transfer == "hlg":  # the display's share: brighter pixels get more (BT.2100, gamma 1.2)
        light = light * (light @ LUMINANCE).clamp_min(1e-6).pow(0.2)[..., None] * (PEAK / WHITE)
    light = (light @ GAMUT.T).clamp_min(0.0)
    brightest = light.amax(-1, keepdim=True).clamp_min(1e-6)
    light = light * (_compressed(brightest) / brightest)
    return _encoded()[(light * (LEVELS - 1)).round().clamp_max(LEVELS - 1).long()]


def _compressed(light: torch.Tensor) -> torch.Tensor:
    """Reinhard's curve with a white point: 0 to `PEAK` / `WHITE` -> 0 to 1, nearly the identity in the dark."""
    peak = PEAK / WHITE
    return light * (1 + light / peak**2) / (1 + light)


@cache
def _linear(transfer: str) -> torch.Tensor:
    """float32 (LEVELS,): a coded level's light; 1 is the reference white for PQ, the peak for HLG."""
    coded = np.arange(LEVELS) / (LEVELS - 1)
    if transfer == "pq":  # SMPTE ST 2084
        root = coded ** (32 / 2523)
        light = (np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)) ** (8192 / 1305)
        return torch.from_numpy(light * 10_000 / WHITE).float()
    a, b, c = 0.17883277, 0.28466892, 0.55991073  # ARIB STD-B67
    return torch.from_numpy(np.where(coded <= 0.5, coded**2 / 3, (np.exp((coded - c) / a) + b) / 12)).float()


@cache
def _encoded() -> torch.Tensor:
    """uint8 (LEVELS,): linear light in [0, 1] -> level of BT.709, as a display of gamma 2.4 (BT.1886) shows it."""
    return torch.from_numpy((np.arange(LEVELS) / (LEVELS - 1)) ** (1 / 2.4) * 255).round().to(torch.uint8)
