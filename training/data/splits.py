"""Splits of images: training, validation, calibration."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bundle.tensors import Images, Labels
from training.errors import DataError

SAMPLE = 6000  # images: a closed form that is fitted to more takes minutes and changes nothing that can be seen


@dataclass(frozen=True)
class Split:
    """Images uint8 (n, height, width, channels), 0 to 255, and the index of each one's class where it is known."""

    images: Images
    labels: Labels | None = None

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: npt.NDArray[np.int64]) -> "Split":
        return Split(self.images[indices], None if self.labels is None else self.labels[indices])

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor | None]:
        labels = None if self.labels is None else torch.from_numpy(self.labels).to(device)
        return torch.from_numpy(self.images).to(device), labels


@dataclass(frozen=True)
class TrainingSplits:
    """The training images: those that the weights are fitted to, and those held out to watch and to calibrate."""

    training: Split
    validation: Split
    calibration: Split


def split(images: Split, calibration: int, validation: int, seed: int) -> TrainingSplits:
    """Part the training images by chance. Raises DataError where none are left to train on."""
    held_out = calibration + validation
    if len(images) <= held_out:
        raise DataError(
            f"{len(images)} images to train on are too few: {calibration} (data.calibration) and "
            f"{validation} (data.validation) of them are held out"
        )
    order = np.random.default_rng(seed).permutation(len(images))
    calibrating, validating, fitted = np.split(order, [calibration, held_out])
    return TrainingSplits(images.take(fitted), images.take(validating), images.take(calibrating))


def sample(images: Images) -> Images:
    """At most `SAMPLE` of the images, evenly spaced."""
    return (
        images
        if len(images) <= SAMPLE
        else images[np.linspace(0, len(images) - 1, SAMPLE).astype(int)]
    )


def balanced(images: Split, count: int) -> Split:
    """The first `count` images with as many of each class. Raises DataError where a class has too few."""
    assert images.labels is not None  # the pipeline refuses data without
    classes = np.unique(images.labels)
    share, rest = divmod(count, len(classes))
    chosen = [
        np.flatnonzero(images.labels == label)[: share + (place < rest)]
        for place, label in enumerate(classes)
    ]
    taken = np.concatenate(chosen)
    if len(taken) < count:
        raise DataError(
            f"classifier.labels: {count} images with as many of each class are not there"
        )
    return images.take(np.sort(taken))
