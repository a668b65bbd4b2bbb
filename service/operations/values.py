"""Inputs and results of the operations, and the limits of a request."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from bundle.conformal import Verdict
from bundle.errors import ItemError
from bundle.heatmap import Region
from bundle.manifest import Capability
from bundle.tensors import Array, Pixels
from service.errors import InvalidItems, OperationNotSupported, TooManyImages

Floats = npt.NDArray[np.float32]
Latents = Sequence[Array] | Array  # float32, to be checked: (n, latent_dim)
Result = TypeVar("Result")
MAX_SEED = 2**53 - 1  # the largest integer that every JSON reader keeps exactly


@dataclass(frozen=True)
class Limits:
    """Most images and pixels of a request, and the seconds that it may wait."""

    max_images: int
    max_image_pixels: int
    max_output_pixels: int
    request_timeout: float


@dataclass(frozen=True)
class EncodedImages:
    """Images of a request: encoded, or one array at the model's size."""

    images: Sequence[bytes] | Array


class Images(NamedTuple):
    """Images at the model's size, uint8 (n, height, width, channels), and their original sizes.

    `lost_colour` holds the indices of images in colour that a model of grey images was sent.
    """

    pixels: Pixels
    original_sizes: Sequence[tuple[int, int]]
    lost_colour: Sequence[int] = ()


@dataclass(frozen=True)
class Encoded:
    """Latents (n, latent_dim); of a variational model the means, and the logarithms of the variances if asked for."""

    latents: Floats
    log_variances: Floats | None
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Reconstructed:
    """Images as the model gives them back, and the mean squared error of each, (n,), on the 0..1 scale."""

    images: Pixels
    errors: Floats
    original_sizes: Sequence[tuple[int, int]]
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Denoised:
    images: Pixels
    original_sizes: Sequence[tuple[int, int]]
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Classified:
    """Probabilities (n, classes), float32, in the order of the names."""

    probabilities: Floats
    classes: tuple[str, ...]
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class DecodedLatents:
    """Images, and the latents that they were decoded from."""

    images: Pixels
    latents: Floats


class Pictures(NamedTuple):
    """Pictures of anomalies to draw, each at the input's own size."""

    heatmap: bool = False
    overlay: bool = False


NO_PICTURES = Pictures()


@dataclass(frozen=True)
class Localised:
    """The anomalous regions of an image in pixels of the input, and pictures of them, as PNG."""

    regions: list[Region]
    heatmap: bytes | None
    overlay: bytes | None


@dataclass(frozen=True)
class Scored:
    """Verdicts at a false positive rate, and the regions of each image if they were asked for.

    `reason` says why the rate allows no verdict.
    """

    verdicts: list[Verdict]
    false_positive_rate: float
    method: str
    reason: str | None
    localised: list[Localised] | None
    warnings: Sequence[str] = ()


def check_supported(name: str, capability: Capability, capabilities: Sequence[str]) -> None:
    """Raise OperationNotSupported if it is not among the capabilities of the named model."""
    if capability not in capabilities:
        can = ", ".join(capabilities)
        raise OperationNotSupported(f"{name} was not trained to {capability}; it can: {can}")


def check_count(count: int, most: int) -> None:
    """Raise TooManyImages if a request holds or asks for more than `most`."""
    if count > most:
        raise TooManyImages(
            f"{count} images or latents are too many for one request; {most} are allowed"
        )


def each(count: int, work: Callable[[int], Result]) -> list[Result]:
    """Do the work for every item. Raises InvalidItems with the errors of all items."""
    results, errors = [], []
    for index in range(count):
        try:
            results.append(work(index))
        except ItemError as error:
            errors.append((index, error))
    if errors:
        raise InvalidItems(errors)
    return results
