"""Splits of images: training, validation and calibration."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bundle.tensors import Images, Labels
from training.errors import DataError

MAX_SAMPLE_IMAGES = 6000  # closed forms of more take minutes, without a visible difference


@dataclass(frozen=True)
class Split:
    """Images uint8 (n, height, width, channels), 0 to 255, with class indices if known."""

    images: Images
    labels: Labels | None = None

    def __len__(self) -> int:
        return len(self.images)

    def require_labels(self) -> Labels:
        """The labels. Raises DataError if the images have none."""
        if self.labels is None:
            raise DataError("the images have no labels: add IDX files or subfolders of classes")
        return self.labels

    def take(self, indices: npt.NDArray[np.int64]) -> "Split":
        return Split(self.images[indices], None if self.labels is None else self.labels[indices])

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Images and labels on a device."""
        labels = None if self.labels is None else torch.from_numpy(self.labels).to(device)
        return torch.from_numpy(self.images).to(device), labels


@dataclass(frozen=True)
class TrainingSplits:
    """The training images of a data set, divided by their use."""

    training: Split  # fits the weights
    validation: Split  # held out to watch the training
    calibration: Split  # held out for the calibration scores


def split(images: Split, calibration: int, validation: int, seed: int) -> TrainingSplits:
    """Split the training images at random. Raises DataError if none are left to train on."""
    held_out = calibration + validation
    if len(images) <= held_out:
        raise DataError(
            f"{len(images)} images to train on are too few: {calibration} (data.calibration) and"
            f" {validation} (data.validation) of them are held out; lower these or add images"
        )
    order = np.random.default_rng(seed).permutation(len(images))
    calibrating, validating, fitted = np.split(order, [calibration, held_out])
    return TrainingSplits(images.take(fitted), images.take(validating), images.take(calibrating))


def sample(images: Images) -> Images:
    """At most `MAX_SAMPLE_IMAGES` of the images, evenly spaced."""
    if len(images) <= MAX_SAMPLE_IMAGES:
        return images
    sampled: Images = images[np.linspace(0, len(images) - 1, MAX_SAMPLE_IMAGES).astype(int)]
    return sampled


def take_balanced(images: Split, count: int) -> Split:
    """The first `count` images with equal numbers of each class.

    Raises DataError if there are no labels, or a class has too few images.
    """
    labels = images.require_labels()
    classes = np.unique(labels)
    share, rest = divmod(count, len(classes))
    chosen = [
        np.flatnonzero(labels == label)[: share + (index < rest)]
        for index, label in enumerate(classes)
    ]
    taken = np.concatenate(chosen)
    if len(taken) < count:
        raise DataError(
            f"classifier.labels is {count}, but only {len(taken)} images can be balanced over the"
            " classes: lower it"
        )
    return images.take(np.sort(taken))
