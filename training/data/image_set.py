"""Images of a detector: read anew at each working size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bundle.manifest import InputSpec
from training.data import dataset, image_file, photo_folder
from training.data.dataset import Dataset, Images
from training.data.photo_folder import PhotoFolder
from training.detector.config import Size
from training.errors import DataError
from training.progress import Log
from training.recipe import DetectorRecipe


class ImageSet(Protocol):
    """Images that can be read at any working size."""

    def __len__(self) -> int: ...

    def take(self, indices: npt.NDArray[np.int64]) -> "ImageSet": ...

    def read(self, spec: InputSpec, log: Log) -> Images:
        """uint8 (n, height, width, channels)."""
        ...


@dataclass(frozen=True)
class Photographs:
    """Files, decoded by the service's own decoder."""

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

    def read(self, spec: InputSpec, log: Log) -> Images:  # noqa: ARG002 - others have something to log
        dataset.check_fits(self.images, spec)
        return self.images


@dataclass(frozen=True)
class Anomalous:
    """Labelled anomalous images to test with; `labels` count in `kinds`, and `masks` are files or None."""

    title: str
    images: ImageSet
    labels: npt.NDArray[np.int64]
    kinds: tuple[str, ...]
    masks: tuple[Path | None, ...] = ()

    def read_masks(self, size: Size) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Masks (n, height, width), true in anomalies, and (n,) of the images that have one."""
        found = [photo_folder.decode_mask(path, size) if path else None for path in self.masks]
        empty = np.zeros(size, dtype=bool)
        masks = np.array([empty if mask is None else mask for mask in found]).reshape(-1, *size)
        return masks, np.array([mask is not None for mask in found], dtype=bool)


@dataclass(frozen=True)
class DetectorData:
    """Normal images to fit with, those held out to calibrate with (None: cross-fitting), and images to test with."""

    training: ImageSet
    calibration: ImageSet | None
    test: ImageSet
    anomalous: Anomalous | None
    sha256: dict[str, str]
    sizes: Sequence[Size]  # working sizes that the images are large enough for


def load(recipe: DetectorRecipe, directory: Path | None, log: Log) -> DetectorData:
    """The images of a recipe. Raises DataError where they are missing, damaged or too few."""
    if recipe.data.dataset == "photographs":
        return _photographs(recipe, directory, log)
    spec = recipe.spec(recipe.detector.sizes[0])
    loaded = dataset.load(recipe.data, spec, recipe.seed, directory, log)
    return _arrays(recipe, loaded, directory, log)


def _arrays(recipe: DetectorRecipe, loaded: Dataset, directory: Path | None, log: Log) -> DetectorData:
    count, held_out = len(loaded.training), recipe.data.calibration
    if count <= held_out:
        raise DataError(f"{count} images to train on are too few: {held_out} are held out (data.calibration)")
    calibration, training = np.split(np.random.default_rng(recipe.seed).permutation(count), [held_out])
    fitted = dataset.sample(loaded.training.take(training).images)
    spec = recipe.spec(recipe.detector.sizes[0])
    outliers = dataset.outliers_of(recipe.data, loaded, spec, directory, log)
    anomalous = None
    if outliers is not None:
        labels = outliers.images.labels if outliers.kinds else None
        anomalous = Anomalous(
            outliers.title,
            Arrays(outliers.images.images),
            np.zeros(len(outliers.images), dtype=np.int64) if labels is None else labels,
            outliers.kinds or (outliers.title,),
            (None,) * len(outliers.images),
        )
    return DetectorData(
        Arrays(fitted),
        Arrays(loaded.training.take(calibration).images),
        Arrays(loaded.test.images),
        anomalous,
        loaded.sha256,
        recipe.detector.sizes,
    )


def _photographs(recipe: DetectorRecipe, directory: Path | None, log: Log) -> DetectorData:
    if directory is None:
        raise DataError("--data is missing: name the directory of normal photographs, or of train/good and test")
    spec = recipe.spec(recipe.detector.sizes[0])
    found = photo_folder.find(directory, spec, recipe.data.unfit, log)
    parted = photo_folder.hold_out(found, recipe.data.test, recipe.seed)
    if parted.normal and not found.normal:
        log(f"{len(parted.normal)} of {len(found.training)} photographs are held out to test with: no test/good")
    return DetectorData(
        Photographs(parted.training + parted.validation),
        None,
        Photographs(parted.normal),
        _defects(parted),
        parted.sha256,
        _useful_sizes(recipe.detector.sizes, parted.size),
    )


def _defects(found: PhotoFolder) -> Anomalous | None:
    if not found.anomalous:
        return None
    return Anomalous("defects", Photographs(found.anomalous), found.labels, found.kinds, found.masks)


def _useful_sizes(sizes: Sequence[Size], of_photographs: Size) -> list[Size]:
    """The first working size, and larger ones up to the size of the photographs."""
    (height, width), (first, *larger) = of_photographs, sizes
    return [first, *(size for size in larger if size[0] <= height and size[1] <= width)]
