"""How near reconstructions are to their originals: frame by frame, and as a distribution."""

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_ERROR = 1e-10  # of a frame: what is nearer counts as 100 dB
WINDOW, SIGMA = 11, 1.5
STABILISERS = (0.01**2, 0.03**2)  # for values in [0, 1]


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, dB, of frames (N, C, H, W) in [0, 1]: (N,), at most 100."""
    error = (x - y).square().flatten(1).mean(1)
    return -10 * error.clamp_min(LEAST_ERROR).log10()


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity (Wang et al., 2004) of frames (N, C, H, W) in [0, 1]: (N,).

    Local statistics are weighted by a Gaussian of 11 pixels a side and a deviation of 1.5; only windows that lie inside
    the frame count, and channels count alike.
    """
    mean_x, mean_y, square_x, square_y, product = smoothed(torch.stack([x, y, x * x, y * y, x * y]))
    variance_x, variance_y = square_x - mean_x**2, square_y - mean_y**2
    covariance = product - mean_x * mean_y
    brightness, contrast = STABILISERS
    similarity = (2 * mean_x * mean_y + brightness) * (2 * covariance + contrast)
    similarity = similarity / ((mean_x**2 + mean_y**2 + brightness) * (variance_x + variance_y + contrast))
    return similarity.flatten(1).mean(1)


def smoothed(x: Tensor) -> Tensor:
    """(..., H, W) to (..., H - 10, W - 10): Gaussian means."""
    distance = torch.arange(WINDOW, device=x.device, dtype=x.dtype) - WINDOW // 2
    weights = torch.exp(-0.5 * (distance / SIGMA) ** 2)
    weights = weights / weights.sum()
    planes = x.flatten(0, -3).unsqueeze(1)
    planes = F.conv2d(F.conv2d(planes, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
    return planes.view(*x.shape[:-2], *planes.shape[-2:])


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Distance of the normal distributions of two sets of features (N, d), N >= 2; of I3D's features it is FVD
    (Unterthiner et al., 2018, arXiv 1812.01717).
    """
    a, b = a.double(), b.double()
    cov_a, cov_b = a.T.cov(), b.T.cov()
    # The trace of (cov_a cov_b)^1/2, by a symmetric matrix with the same eigenvalues.
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    return ((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * shared).item()
