"""Distances of embeddings from the embeddings of training images."""

import numpy as np
import torch
from scipy import linalg
from torch import Tensor, nn

SHRINKAGE = 0.05  # share of the largest variance, added to the variance in every direction
MAX_AXES = 128
EPSILON = 1e-12  # keeps variances and distances above zero


class Whitening(nn.Module):
    """Mahalanobis distances (n,) of vectors (n, d), with a shrunk covariance for small samples.

    The principal axes have eigenvalues v; every direction has an added variance e. A vector has
    projections p on the axes and a remainder r. Its squared distance is
    sum(p^2 / (v + e)) + r^2 / e. There is at most one axis for two vectors of the fit size.
    """

    mean: Tensor
    axes: Tensor
    weights: Tensor

    def __init__(self, vectors: Tensor, fit_size: int) -> None:
        super().__init__()
        mean = vectors.mean(dim=0)
        count = max(1, min(MAX_AXES, fit_size // 2, vectors.shape[1]))
        variances, axes = find_principal_axes((vectors - mean).double(), count)
        added = float(SHRINKAGE * variances[0]) + EPSILON
        self.register_buffer("mean", mean)
        self.register_buffer("axes", axes.float().half().float())
        self.register_buffer("weights", (1 / (variances + added) - 1 / added).float())
        self.base_weight = 1 / added

    def project(self, vectors: Tensor) -> Tensor:
        """Whitened coordinates (n, axes) on the principal axes."""
        coordinates: Tensor = (
            (vectors - self.mean) @ self.axes.T * (self.weights + self.base_weight).sqrt()
        )
        return coordinates

    def forward(self, vectors: Tensor) -> Tensor:
        centred = vectors - self.mean
        projections = centred @ self.axes.T
        squares = centred.square().sum(dim=1) * self.base_weight
        squares = squares + (projections.square() * self.weights).sum(dim=1)
        return squares.clamp(min=EPSILON).sqrt()


class LatentDistance(nn.Module):
    """Logarithm of the Mahalanobis distance of latents (n, latent_dim) from the training latents.

    Lee et al. 2018, "A Simple Unified Framework for Detecting Out-of-Distribution Samples",
    section 2.1.
    """

    def __init__(self, latents: Tensor, fit_size: int) -> None:
        super().__init__()
        self.whitening, self.latent_dim = Whitening(latents, fit_size), latents.shape[1]

    def forward(self, latents: Tensor) -> Tensor:
        distance: Tensor = self.whitening(latents)
        return distance.log()


def find_principal_axes(centred: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Largest variances (count,) of centred vectors (n, d), and axes (count, d), in float64."""
    n, d = centred.shape
    vectors = centred.numpy()
    gram = vectors.T @ vectors if d <= n else vectors @ vectors.T  # the smaller product
    last = len(gram) - 1
    values, eigenvectors = linalg.eigh(gram, subset_by_index=(max(0, last - count + 1), last))
    values, eigenvectors = values[::-1].clip(min=1e-12), eigenvectors[:, ::-1]
    axes = eigenvectors.T if d <= n else (vectors.T @ (eigenvectors / np.sqrt(values))).T
    return torch.from_numpy(values / n), torch.from_numpy(axes.copy())
