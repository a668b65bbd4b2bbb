"""Images of a detector, which are read again at each working size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from bundle.manifest import REDUCING_GAP, WHITE_16_BIT, InputSpec, ReducingGap, Resample, White16Bit
from bundle.tensors import Images
from training.config import Config, Size
from training.data import dataset, image_file, photo_folder
from training.progress import Log


class PhotoInput(Config):
    """Format that photographs are converted to, beside their working size."""

    channels: Literal[1, 3] = 3
    """1: grey, 3: RGB."""
    resample: Resample = "bilinear"
    """Filter that resizes images of other sizes."""
    white_16_bit: White16Bit = WHITE_16_BIT
    """White value of 16-bit pixels; sensors of 12 bits write at most 4095."""
    reducing_gap: ReducingGap = REDUCING_GAP
    """Minimum size of a reduced JPEG, in working sizes.

    A large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, which is faster.
    """

    def spec(self, size: Size) -> InputSpec:
        """The input of the graphs at a working size (height, width)."""
        return InputSpec(height=size[0], width=size[1], **self.model_dump())


class ImageSet(Protocol):
    """Images that can be read at any working size."""

    def __len__(self) -> int: ...

    def take(self, indices: npt.NDArray[np.int64]) -> "ImageSet": ...

    def read(self, spec: InputSpec, log: Log) -> Images:
        """Images uint8 (n, height, width, channels)."""
        ...


@dataclass(frozen=True)
class Photographs:
    """Files, decoded by the service's decoder."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: npt.NDArray[np.int64]) -> "Photographs":
        return Photographs(tuple(self.paths[index] for index in indices))

    def read(self, spec: InputSpec, log: Log) -> Images:
        return image_file.decode(self.paths, spec, log)


@dataclass(frozen=True)
class Arrays:
    """Images of one size, as those of MNIST."""

    images: Images

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: npt.NDArray[np.int64]) -> "Arrays":
        return Arrays(self.images[indices])

    def read(self, spec: InputSpec, log: Log) -> Images:  # noqa: ARG002 - Photographs logs
        dataset.check_size(self.images, spec)
        return self.images


@dataclass(frozen=True)
class AnomalousImages:
    """Labelled anomalous images to test with; `labels` index `kinds`, `masks` are files or None."""

    title: str
    images: ImageSet
    labels: npt.NDArray[np.int64]
    kinds: tuple[str, ...]
    masks: tuple[Path | None, ...] = ()

    def read_masks(self, size: Size) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Masks (n, height, width), true in anomalies, and (n,) true if an image has a mask."""
        decoded = [photo_folder.decode_mask(path, size) if path else None for path in self.masks]
        empty = np.zeros(size, dtype=bool)
        masks = np.array([empty if mask is None else mask for mask in decoded]).reshape(-1, *size)
        return masks, np.array([mask is not None for mask in decoded], dtype=bool)


@dataclass(frozen=True)
class DetectorData:
    """The splits of a detector's images."""

    training: ImageSet  # normal
    calibration: ImageSet | None  # normal and held out; None: cross-fitting
    test: ImageSet  # normal
    anomalous: AnomalousImages | None
    sha256: dict[str, str]
    sizes: Sequence[Size]  # working sizes that the images are large enough for
