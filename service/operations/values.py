"""Inputs and results of the operations, and limits of a request."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from bundle.conformal import Verdict
from bundle.errors import ItemError
from bundle.heatmap import Region
from bundle.manifest import Capability
from bundle.tensors import Array, Pixels
from service.errors import (
    InvalidItems,
    OperationNotSupported,
    TooManyImages,
)

Floats = npt.NDArray[np.float32]
Latents = Sequence[Array] | Array  # unchecked: should be float32 (n, latent_dim)
Result = TypeVar("Result")
MAX_SEED = 2**53 - 1  # the largest integer that every JSON reader keeps exact


@dataclass(frozen=True)
class Limits:
    """Maximum images and pixels of a request, and its timeout in seconds."""

    max_images: int
    max_image_pixels: int
    max_output_pixels: int
    request_timeout: float


@dataclass(frozen=True)
class EncodedImages:
    """Images of a request: encoded files, or one array at the model's size."""

    images: Sequence[bytes] | Array


class DecodedImages(NamedTuple):
    """Images at the model's size, uint8 (n, height, width, channels), and their original sizes.

    `lost_colour` holds the indices of colour images that became grey for the model.
    """

    pixels: Pixels
    original_sizes: Sequence[tuple[int, int]]
    lost_colour: Sequence[int] = ()


@dataclass(frozen=True)
class EncodeResult:
    """Latents (n, latent_dim), and the logarithms of their variances if requested.

    The latents of a variational model are means.
    """

    latents: Floats
    log_variances: Floats | None
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class ReconstructResult:
    """Reconstructed images, and the mean squared error (n,) of each on the 0..1 scale."""

    images: Pixels
    errors: Floats
    original_sizes: Sequence[tuple[int, int]]
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class DenoiseResult:
    """Denoised images, uint8 (n, height, width, channels)."""

    images: Pixels
    original_sizes: Sequence[tuple[int, int]]
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class ClassifyResult:
    """Probabilities, float32 (n, classes), in the order of `classes`."""

    probabilities: Floats
    classes: tuple[str, ...]
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class DecodedLatents:
    """Decoded images and their latents."""

    images: Pixels
    latents: Floats


class Pictures(NamedTuple):
    """Requested pictures of anomalies, at the original size of each image."""

    heatmap: bool = False
    overlay: bool = False


NO_PICTURES = Pictures()


@dataclass(frozen=True)
class Localisation:
    """Anomalous regions of an image in pixels of the input, and their pictures as PNG."""

    regions: list[Region]
    heatmap: bytes | None
    overlay: bytes | None


@dataclass(frozen=True)
class ScoreResult:
    """Verdicts at a false positive rate, and the regions of each image if requested.

    `reason` is the reason for no verdict at this rate.
    """

    verdicts: list[Verdict]
    false_positive_rate: float
    method: str
    reason: str | None
    localised: list[Localisation] | None
    warnings: Sequence[str] = ()


def check_supported(name: str, capability: Capability, capabilities: Sequence[str]) -> None:
    """Raise OperationNotSupported if the named model lacks the capability."""
    if capability not in capabilities:
        supported = ", ".join(capabilities)
        raise OperationNotSupported(f"{name} was not trained to {capability}; it can: {supported}")


def check_count(count: int, max_count: int) -> None:
    """Raise TooManyImages if a request or its response would hold more than `max_count` items."""
    if count > max_count:
        raise TooManyImages(
            f"{count} images or latents are too many for one request; send at most {max_count}"
        )


class ItemResults(Generic[Result]):
    """Results of the items of a request so far, in order, and the errors of invalid items."""

    def __init__(self) -> None:
        self._results: list[Result] = []
        self._errors: list[tuple[int, ItemError]] = []

    @property
    def done(self) -> int:
        """The number of items so far."""
        return len(self._results) + len(self._errors)

    def add(self, work: Callable[[int], Result]) -> None:
        """Call `work` for the index of the next item."""
        index = self.done
        try:
            self._results.append(work(index))
        except ItemError as error:
            self._errors.append((index, error))

    def get(self) -> list[Result]:
        """Return the results. Raises InvalidItems with the errors of all items, if any."""
        if self._errors:
            raise InvalidItems(self._errors)
        return self._results


def map_items(count: int, work: Callable[[int], Result]) -> list[Result]:
    """Call `work` for each index. Raises InvalidItems with the errors of all items."""
    items: ItemResults[Result] = ItemResults()
    for _ in range(count):
        items.add(work)
    return items.get()
