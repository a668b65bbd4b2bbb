"""Kinds of evidence that an image is strange: modules of the scoring graph, fitted to the training images.

Each gives one number for each image, more is stranger, and some a map of where. They see images and reconstructions at
the size at which `training.similarity` compares them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.architectures import Autoencoder
from training.architectures.segmenter import Segmenter
from training.scattering import Scattering
from training.similarity import deviation_map

EvidenceName = Literal[
    "pixels",
    "gradients",
    "segmenter",
    "latents",
    "activations",
    "neighbours",
    "scattering",
    "scattering-neighbours",
]
NAMES: tuple[EvidenceName, ...] = get_args(EvidenceName)
MAPPED: tuple[EvidenceName, ...] = ("pixels", "gradients", "segmenter", "neighbours")  # those that say where
SHRINKAGE = 0.05  # what is added to the variance in every direction, in parts of the largest
MOST_AXES = 128
GRID = 4  # activations are averaged over a grid of so many cells a side
CORESET = 1000  # features that stand for all others
CANDIDATES = 50_000  # features, by chance, that they are taken from
NEIGHBOURS = 5
TINY = 1e-12
ERROR, DEVIATION = 1e-4, 1e-3  # floors, on the scales of each kind
NEAR = 0.01  # square of a distance, in units of the variance; of closer features it would be mostly rounding


class Scene(NamedTuple):
    """Images and their reconstructions (n, channels, height, width) in 0..1, and latents (n, latent_dim)."""

    images: Tensor
    restored: Tensor
    latents: Tensor


class Evidence(nn.Module, ABC):
    """`forward` gives a number for each image (n,), and a map (n, height, width) or None."""

    @abstractmethod
    def forward(self, scene: Scene) -> tuple[Tensor, Tensor | None]: ...


class PixelError(Evidence):
    """The squared error of each pixel; of an image the largest mean over a window. All evidence is in logarithms."""

    def forward(self, scene: Scene) -> tuple[Tensor, Tensor | None]:
        error = (scene.images - scene.restored).square().mean(dim=1)
        return _log(_peak(error, 6), ERROR), _log(_smooth(error, 12), ERROR)


class GradientDeviation(Evidence):
    """What `similarity.deviation_map` says; of an image the largest mean over a window."""

    def forward(self, scene: Scene) -> tuple[Tensor, Tensor | None]:
        deviation = deviation_map(scene.images, scene.restored)
        return _log(_peak(deviation, 12), DEVIATION), _log(_smooth(deviation, 12), DEVIATION)


class Segmentation(Evidence):
    """The logits of a segmenter that was trained on synthetic anomalies."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, scene: Scene) -> tuple[Tensor, Tensor | None]:
        logits: Tensor = self.segmenter(scene.images, scene.restored).squeeze(1)
        smooth = _smooth(logits, 24)
        return smooth.amax(dim=(1, 2)), smooth


class LatentDistance(Evidence):
    """The Mahalanobis distance of the latents from those of the training images (Lee et al. 2018, section 2.1)."""

    def __init__(self, latents: Tensor, fineness: int) -> None:
        super().__init__()
        self.whitening = Whitening(latents, fineness)

    def forward(self, scene: Scene) -> tuple[Tensor, Tensor | None]:
        distance: Tensor = self.whitening(scene.latents)
        return distance.log(), None


class ActivationDistance(Evidence):
    """How far the encoder's activations of an image are from those of its reconstruction: RaPP (Kim et al. 2020).

    The distance is NAP, section 3.2: in the whitened space of the training images' differences.
    """

    def __init__(self, network: Autoencoder, scenes: Sequence[Scene], fineness: int) -> None:
        super().__init__()
        self.network = network
        self.whitening = Whitening(torch.cat([self._differences(scene) for scene in scenes]), fineness)

    def forward(self, scene: Scene) -> tuple[Tensor, Tensor | None]:
        distance: Tensor = self.whitening(self._differences(scene))
        return distance.log(), None

    def _differences(self, scene: Scene) -> Tensor:
        pairs = zip(self.network.activations(scene.images), self.network.activations(scene.restored), strict=True)
        return torch.cat([_on_a_grid(of_image - of_restored) for of_image, of_restored in pairs], dim=1)


class NearestNeighbour(Evidence):
    """The distance of each patch's features from the nearest of a memory bank (PatchCore: Roth et al. 2022, section 3).

    The features are the encoder's activations at the middle of its resolutions.
    """

    bank: Tensor

    def __init__(self, network: Autoencoder, scenes: Sequence[Scene], generator: torch.Generator) -> None:
        super().__init__()
        self.network = network
        features = torch.cat([self._features(scene.images).flatten(0, 2) for scene in scenes])
        self.scale = float(features.std())
        candidates = features[torch.randperm(len(features), generator=generator)[:CANDIDATES]] / self.scale
        self.register_buffer("bank", coreset(candidates, CORESET, generator).half().float())

    def forward(self, scene: Scene) -> tuple[Tensor, Tensor | None]:
        features = self._features(scene.images) / self.scale
        size = features.shape[1:3]
        squares = _squared_distances(features.flatten(1, 2), self.bank)
        nearest = squares.amin(dim=2).clamp(min=NEAR).sqrt().view(-1, 1, *size)
        size_wanted = list(scene.images.shape[2:])
        distances = functional.interpolate(nearest, size_wanted, mode="bilinear", align_corners=False).squeeze(1)
        return _peak(distances, 12).log(), _smooth(distances, 12).log()

    def _features(self, images: Tensor) -> Tensor:
        """(n, rows, columns, features): each patch with its surroundings, of two resolutions."""
        levels = self.network.activations(images)
        middle = len(levels) // 2
        fine, coarse = levels[max(middle - 1, 0)], levels[middle]
        around = functional.avg_pool2d(coarse, 3, stride=1, padding=1, count_include_pad=False)
        joined = torch.cat([functional.adaptive_avg_pool2d(fine, (coarse.shape[2], coarse.shape[3])), around], dim=1)
        return joined.permute(0, 2, 3, 1)


class ScatteringDistance(Evidence):
    """The Mahalanobis distance of the scattering coefficients.

    Bruna and Mallat 2013, section 4.1, tell classes apart by the distance from a space of principal components.
    """

    def __init__(self, scenes: Sequence[Scene], fineness: int) -> None:
        super().__init__()
        self.scattering = Scattering()
        self.whitening = Whitening(torch.cat([self.scattering(scene.images) for scene in scenes]), fineness)

    def forward(self, scene: Scene) -> tuple[Tensor, Tensor | None]:
        distance: Tensor = self.whitening(self.scattering(scene.images))
        return distance.log(), None


class ScatteringNeighbours(Evidence):
    """The mean distance of the nearest training images, in the whitened scattering coefficients."""

    bank: Tensor

    def __init__(self, scenes: Sequence[Scene], fineness: int) -> None:
        super().__init__()
        self.scattering = Scattering()
        coefficients = torch.cat([self.scattering(scene.images) for scene in scenes])
        self.whitening = Whitening(coefficients, fineness)
        self.register_buffer("bank", self.whitening.coordinates(coefficients).half().float())

    def forward(self, scene: Scene) -> tuple[Tensor, Tensor | None]:
        coordinates = self.whitening.coordinates(self.scattering(scene.images))
        squares = _squared_distances(coordinates, self.bank)
        nearest = squares.topk(min(NEIGHBOURS, len(self.bank)), dim=1, largest=False).values
        return nearest.clamp(min=NEAR).sqrt().mean(dim=1).log(), None


class Whitening(nn.Module):
    """Mahalanobis distances (n,) of vectors (n, d), with a covariance that is shrunk so that few vectors will do.

    With the eigenvalues v of the largest axes and a variance e of every direction beside, the square of the distance is
    the sum of p^2 / (v + e) over the projections p on the axes, and of the rest's square over e. There is at most one
    axis for two of `fineness` vectors.
    """

    mean: Tensor
    axes: Tensor
    weights: Tensor

    def __init__(self, vectors: Tensor, fineness: int) -> None:
        super().__init__()
        mean = vectors.mean(dim=0)
        _, singular, axes = torch.linalg.svd((vectors - mean).double(), full_matrices=False)
        variances = singular.square() / len(vectors)
        count = min(MOST_AXES, fineness // 2, vectors.shape[1])
        beside = SHRINKAGE * variances[0] + TINY
        self.register_buffer("mean", mean)
        self.register_buffer("axes", axes[:count].float().half().float())
        self.register_buffer("weights", (1 / (variances[:count] + beside) - 1 / beside).float())
        self.rest = float(1 / beside)

    def coordinates(self, vectors: Tensor) -> Tensor:
        """On the largest axes alone, whitened: (n, axes)."""
        coordinates: Tensor = (vectors - self.mean) @ self.axes.T * (self.weights + self.rest).sqrt()
        return coordinates

    def forward(self, vectors: Tensor) -> Tensor:
        centred = vectors - self.mean
        projections = centred @ self.axes.T
        whole = centred.square().sum(dim=1) * self.rest
        return (whole + (projections.square() * self.weights).sum(dim=1)).clamp(min=TINY).sqrt()


def _squared_distances(vectors: Tensor, bank: Tensor) -> Tensor:
    """From each of the vectors (..., d) to each of the bank (m, d): (..., m)."""
    return vectors.square().sum(dim=-1, keepdim=True) - 2 * vectors @ bank.T + bank.square().sum(dim=1)


def build(
    name: EvidenceName, network: Autoencoder, scenes: Sequence[Scene], generator: torch.Generator, fineness: int
) -> Evidence:
    """Evidence of this kind, fitted to scenes of the training images, and no finer than `fineness` of them allow."""
    match name:
        case "pixels":
            return PixelError()
        case "gradients":
            return GradientDeviation()
        case "segmenter":
            assert network.segmenter is not None  # the recipe has one
            return Segmentation(network.segmenter)
        case "latents":
            return LatentDistance(torch.cat([scene.latents for scene in scenes]), fineness)
        case "activations":
            return ActivationDistance(network, scenes, fineness)
        case "neighbours":
            return NearestNeighbour(network, scenes, generator)
        case "scattering":
            return ScatteringDistance(scenes, fineness)
        case "scattering-neighbours":
            return ScatteringNeighbours(scenes, fineness)


def _peak(errors: Tensor, part: int) -> Tensor:
    """The largest mean of (n, height, width) over a window of a `part` of the shorter side: (n,)."""
    return _smooth(errors, part).amax(dim=(1, 2))


def _log(values: Tensor, floor: float) -> Tensor:
    """Logarithms that tell nothing apart which is far below the floor: it is the rounding of images and of sums."""
    return (values.clamp(min=0) + floor).log()


def _smooth(errors: Tensor, part: int) -> Tensor:
    window = max(1, min(errors.shape[1:]) // part) | 1
    padded = errors[:, None]
    return functional.avg_pool2d(padded, window, stride=1, padding=window // 2, count_include_pad=False).squeeze(1)


def _on_a_grid(activations: Tensor) -> Tensor:
    """(n, channels, height, width) to (n, numbers)."""
    return functional.adaptive_avg_pool2d(activations, min(GRID, *activations.shape[2:])).flatten(1)


def coreset(features: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """The greedy k-centre (Sener and Savarese 2018, algorithm 1): the next is the one farthest from all taken."""
    if len(features) <= count:
        return features
    first = torch.randint(len(features), (1,), generator=generator)
    taken = [int(first)]
    distances = (features - features[first]).square().sum(dim=1)
    for _ in range(count - 1):
        farthest = int(distances.argmax())
        taken.append(farthest)
        distances = torch.minimum(distances, (features - features[farthest]).square().sum(dim=1))
    return features[torch.tensor(taken)]
