"""Distances of embeddings from those of the training images."""

import numpy as np
import torch
from scipy import linalg
from torch import Tensor, nn

SHRINKAGE = 0.05  # added to the variance in every direction, in parts of the largest
MAX_AXES = 128
TINY = 1e-12


class Whitening(nn.Module):
    """Mahalanobis distances (n,) of vectors (n, d), with a covariance that is shrunk so that few vectors will do.

    With the eigenvalues v of the largest axes and a variance e of every direction beside, the square of the distance is
    the sum of p^2 / (v + e) over the projections p on the axes, and of the rest's square over e. There is at most one
    axis for two vectors of the fit size.
    """

    mean: Tensor
    axes: Tensor
    weights: Tensor

    def __init__(self, vectors: Tensor, fit_size: int) -> None:
        super().__init__()
        mean = vectors.mean(dim=0)
        count = max(1, min(MAX_AXES, fit_size // 2, vectors.shape[1]))
        variances, axes = principal_axes((vectors - mean).double(), count)
        beside = float(SHRINKAGE * variances[0]) + TINY
        self.register_buffer("mean", mean)
        self.register_buffer("axes", axes.float().half().float())
        self.register_buffer("weights", (1 / (variances + beside) - 1 / beside).float())
        self.rest = 1 / beside

    def coordinates(self, vectors: Tensor) -> Tensor:
        """On the largest axes alone, whitened: (n, axes)."""
        coordinates: Tensor = (
            (vectors - self.mean) @ self.axes.T * (self.weights + self.rest).sqrt()
        )
        return coordinates

    def forward(self, vectors: Tensor) -> Tensor:
        centred = vectors - self.mean
        projections = centred @ self.axes.T
        whole = centred.square().sum(dim=1) * self.rest
        return (whole + (projections.square() * self.weights).sum(dim=1)).clamp(min=TINY).sqrt()


class LatentDistance(nn.Module):
    """Logarithm of the Mahalanobis distance of latents (n, latent_dim) from those of the training images.

    Lee et al. 2018, "A Simple Unified Framework for Detecting Out-of-Distribution Samples", section 2.1.
    """

    def __init__(self, latents: Tensor, fit_size: int) -> None:
        super().__init__()
        self.whitening = Whitening(latents, fit_size)

    def forward(self, latents: Tensor) -> Tensor:
        distance: Tensor = self.whitening(latents)
        return distance.log()


def principal_axes(centred: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest variances (count,) of centred vectors (n, d), and their directions (count, d), float64."""
    n, d = centred.shape
    vectors = centred.numpy()
    small = vectors.T @ vectors if d <= n else vectors @ vectors.T
    last = len(small) - 1
    values, found = linalg.eigh(small, subset_by_index=(max(0, last - count + 1), last))
    values, found = values[::-1].clip(min=1e-12), found[:, ::-1]
    axes = found.T if d <= n else (vectors.T @ (found / np.sqrt(values))).T
    return torch.from_numpy(values / n), torch.from_numpy(axes.copy())
