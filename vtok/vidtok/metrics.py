"""Measures of a reconstruction: PSNR and SSIM frame by frame, and the Fréchet distance of two sets of features."""

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_ERROR = 1e-10  # mean squared errors below this count as 100 dB
WINDOW, SIGMA = 11, 1.5  # pixels
STABILISERS = (0.01**2, 0.03**2)  # SSIM's C1 and C2, for values in [0, 1]


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Returns the peak signal-to-noise ratio of each pair of frames, (N,), in dB, at most 100.

    Args:
        x: Frames (N, C, H, W) in [0, 1].
        y: Frames of the same shape.
    """
    error = (x - y).square().flatten(1).mean(1)
    return -10 * error.clamp_min(LEAST_ERROR).log10()


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Returns the structural similarity (Wang et al., 2004) of each pair of frames, (N,).

    Local statistics use a Gaussian window of 11 x 11 pixels with a standard deviation of 1.5. Only windows that lie
    inside the frame count. All channels have the same weight.

    Args:
        x: Frames (N, C, H, W) in [0, 1], H and W at least 11.
        y: Frames of the same shape.
    """
    mean_x, mean_y, square_x, square_y, product = smoothed(torch.stack([x, y, x * x, y * y, x * y]))
    variance_x, variance_y = square_x - mean_x**2, square_y - mean_y**2
    covariance = product - mean_x * mean_y
    brightness, contrast = STABILISERS
    similarity = (2 * mean_x * mean_y + brightness) * (2 * covariance + contrast)
    similarity = similarity / ((mean_x**2 + mean_y**2 + brightness) * (variance_x + variance_y + contrast))
    return similarity.flatten(1).mean(1)


def smoothed(x: Tensor) -> Tensor:
    """Returns the Gaussian-weighted means of all windows inside the frames: (..., H, W) to (..., H - 10, W - 10)."""
    distance = torch.arange(WINDOW, device=x.device, dtype=x.dtype) - WINDOW // 2
    weights = torch.exp(-0.5 * (distance / SIGMA) ** 2)
    weights = weights / weights.sum()
    planes = x.flatten(0, -3).unsqueeze(1)
    planes = F.conv2d(F.conv2d(planes, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
    return planes.view(*x.shape[:-2], *planes.shape[-2:])


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Returns the Fréchet distance of the normal distributions fitted to two sets of features.

    On I3D's features of clips this is FVD (Unterthiner et al., 2018, arXiv 1812.01717).

    Args:
        a: Features (N, d), N at least 2.
        b: Features (N', d), N' at least 2.
    """
    a, b = a.double(), b.double()
    cov_a, cov_b = a.T.cov(), b.T.cov()
    # The trace of (cov_a cov_b)^1/2 is taken of a symmetric matrix with the same eigenvalues.
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    return ((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * shared).item()
