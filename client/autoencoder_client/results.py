"""Results of the operations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Failures = Mapping[int, str]  # the reasons of invalid images, by their positions


@dataclass(frozen=True)
class Encoding:
    """Latents (n, latent_dim), NaN for failed images, and the digest of the encoder.

    Vectors of different encoders are never comparable.
    """

    latents: Floats
    encoder: str
    failures: Failures = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """Verdict on an image; without a verdict, `reason` says why.

    `picture` is a PNG and `regions` are boxes, if a picture was requested.
    """

    score: float
    p_value: float
    threshold: float | None
    is_anomaly: bool | None
    reason: str | None = None
    picture: bytes | None = None
    regions: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Scoring:
    """Scores by the positions of the images, without failed images."""

    results: Mapping[int, Score]
    false_positive_rate: float
    failures: Failures = field(default_factory=dict)


@dataclass(frozen=True)
class ClassProbabilities:
    """The likeliest class of an image, and the probability of each class."""

    label: str
    probability: float
    probabilities: Mapping[str, float]


@dataclass(frozen=True)
class Classification:
    """Classes by the positions of the images, without failed images."""

    results: Mapping[int, ClassProbabilities]
    failures: Failures = field(default_factory=dict)


@dataclass(frozen=True)
class Pictures:
    """Images by the positions of the inputs, without failed images."""

    images: Mapping[int, Pixels]
    failures: Failures = field(default_factory=dict)


@dataclass(frozen=True)
class Reconstruction:
    """Reconstructions by the positions of the images, and their mean squared errors (n,).

    Failed images have no reconstruction, and the error NaN.
    """

    images: Mapping[int, Pixels]
    errors: Floats
    failures: Failures = field(default_factory=dict)


@dataclass(frozen=True)
class Sampling:
    """Drawn or interpolated images, their latents, and the seed of a draw."""

    images: Sequence[Pixels]
    latents: Floats
    seed: int | None = None
