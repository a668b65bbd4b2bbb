"""Checks that stop a failing training run and say why."""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.errors import CollapsedError, DataError, DivergedError

# Variance over the images, up to which a latent unit or an output is constant.
MIN_VARIANCE = 1e-8
# The same for the posterior means of a variational model (Burda et al. 2016, section 5.2).
MIN_VARIATIONAL_VARIANCE = 1e-2
MAX_COLLAPSED_EPOCHS = 5


def check_images(images: npt.NDArray[np.generic]) -> None:
    """Raise DataError if images are not uint8, because others may exceed 0..1 after scaling."""
    if images.dtype != np.uint8:
        raise DataError(
            "images must be uint8, 0 to 255, which are divided by 255 for the network; these are"
            f" {images.dtype}, {images.min():.4g} to {images.max():.4g}"
        )


def check_finite(loss: float, stage: str, epoch: int) -> None:
    """Raise DivergedError if the loss is NaN or infinite."""
    if not math.isfinite(loss):
        raise DivergedError(
            f"the loss is {loss} in epoch {epoch} of {stage};"
            " lower the learning_rate of its optimiser"
        )


def count_dead_units(latents: Tensor, variational: bool) -> int:
    """Number of latent units (n, latent_dim) that do not depend on the image."""
    threshold = MIN_VARIATIONAL_VARIANCE if variational else MIN_VARIANCE
    return int((latents.var(dim=0) <= threshold).sum())


def find_collapse(dead: int, latents: Tensor, outputs: Tensor) -> str | None:
    """Description of a collapse, or None.

    Either all latent units are dead, or every image has the same output.
    """
    if dead == latents.shape[1]:
        return f"all {dead} latent units are dead"
    if torch.all(outputs.var(dim=0) <= MIN_VARIANCE):
        return "every image has the same output"
    return None


def check_collapse(
    problem: str | None, epochs: int, epoch: int, max_epochs: int = MAX_COLLAPSED_EPOCHS
) -> None:
    """Raise CollapsedError if a collapse has lasted for `max_epochs`.

    Shorter ones are tolerated, because every network starts collapsed.
    """
    if problem is not None and epochs >= max_epochs:
        raise CollapsedError(
            f"{problem}, for {epochs} epochs up to epoch {epoch}:"
            " lower optimiser.learning_rate or loss.beta"
        )
