"""Seeded draws from a latent prior, and paths between latent vectors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

from bundle.errors import InvalidParameter

Vectors = npt.NDArray[np.float32]


class Prior(Protocol):
    """A distribution over latent vectors."""

    def draw(self, count: int, seed: int, temperature: float) -> Vectors:
        """Draw latents, float32 (count, latent_dim); `temperature` scales standard deviations."""
        ...


@dataclass(frozen=True)
class NormalPrior:
    """N(0, I) in `latent_dim` dimensions."""

    latent_dim: int

    def draw(self, count: int, seed: int, temperature: float) -> Vectors:
        noise = np.random.default_rng(seed).standard_normal(
            (count, self.latent_dim), dtype=np.float32
        )
        return noise * np.float32(temperature)


@dataclass(frozen=True)
class GaussianMixture:
    """A mixture of `k` Gaussians: weights (k,), means (k, d), lower Cholesky factors (k, d, d)."""

    weights: npt.NDArray[np.float64]
    means: Vectors
    cholesky: Vectors

    def __post_init__(self) -> None:
        k, d = self.means.shape
        if self.weights.shape != (k,) or self.cholesky.shape != (k, d, d):
            raise ValueError(
                f"a mixture of {k} Gaussians in {d} dimensions has other shapes than these"
            )
        if not np.isclose(self.weights.sum(), 1) or (self.weights < 0).any():
            raise ValueError("mixture weights must be positive and add up to 1")

    def draw(self, count: int, seed: int, temperature: float) -> Vectors:
        generator = np.random.default_rng(seed)
        last = len(self.weights) - 1
        chosen = np.searchsorted(
            np.cumsum(self.weights), generator.random(count), side="right"
        ).clip(max=last)
        noise = generator.standard_normal(self.means[chosen].shape, dtype=np.float32) * np.float32(
            temperature
        )
        # One vector at a time: what is drawn must not depend on how many are drawn with it.
        return np.stack(
            [self.means[c] + self.cholesky[c] @ n for c, n in zip(chosen, noise, strict=True)]
        )

    def save(self, path: Path) -> None:
        """Write the mixture, its factors in float16, which no sample shows."""
        np.savez_compressed(
            path, weights=self.weights, means=self.means, cholesky=self.cholesky.astype(np.float16)
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. A damaged file raises what numpy and zipfile make of it."""
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return cls(arrays["weights"], arrays["means"], arrays["cholesky"].astype(np.float32))


def interpolate(
    start: Vectors, end: Vectors, steps: int, method: Literal["linear", "spherical"]
) -> Vectors:
    """Latents from `start` to `end`, both included: (latent_dim,) twice -> (steps, latent_dim).

    Spherical interpolation follows White 2016, "Sampling Generative Networks", section 2.1; between
    (nearly) parallel vectors it is linear. Raises InvalidParameter if the vectors point in opposite
    directions, or the path leaves the range of float32.
    """
    t = np.linspace(0, 1, steps, dtype=np.float64)[:, None]
    a, b = start.astype(np.float64), end.astype(np.float64)
    weights = 1 - t, t
    if method == "spherical":
        lengths = np.linalg.norm(a) * np.linalg.norm(b)
        cosine = float(np.clip(a @ b / lengths, -1, 1)) if lengths else 1.0
        angle = np.arccos(cosine)
        if np.pi - angle < 1e-6:
            raise InvalidParameter(
                "no spherical path: the two latents point in opposite directions; use linear"
            )
        if angle > 1e-6:
            weights = np.sin((1 - t) * angle) / np.sin(angle), np.sin(t * angle) / np.sin(angle)
    with np.errstate(over="ignore"):
        path = (weights[0] * a + weights[1] * b).astype(np.float32)
    if not np.isfinite(path).all():
        raise InvalidParameter(
            "the path leaves the range of float32: the two latents are too large"
        )
    return path
