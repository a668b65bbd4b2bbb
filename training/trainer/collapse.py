"""What ends a training that cannot come to any good, with a message that says why."""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.errors import CollapsedError, DataError, DivergedError

ALIVE = 1e-8  # variance over the images, above which a latent unit or an output is not constant
ACTIVE = (
    1e-2  # the same for the posterior means of a variational model (Burda et al. 2016, section 5.2)
)
PATIENCE = 5  # epochs that a collapse may last


def check_images(images: npt.NDArray[np.generic]) -> None:
    """Raise DataError where images are not uint8, for only these are sure to be in 0..1 when divided by 255."""
    if images.dtype != np.uint8:
        raise DataError(
            f"images must be uint8, 0 to 255, of which the network sees 0..1; these are {images.dtype}, "
            f"{images.min():.4g} to {images.max():.4g}"
        )


def check_finite(loss: float, stage: str, epoch: int) -> None:
    """Raise DivergedError where the loss is no number."""
    if not math.isfinite(loss):
        raise DivergedError(
            f"the loss is {loss} in epoch {epoch} of {stage}; lower the learning_rate of its optimiser"
        )


def dead_units(latents: Tensor, variational: bool) -> int:
    """How many latent units (n, latent_dim) say nothing of the image."""
    return int((latents.var(dim=0) <= (ACTIVE if variational else ALIVE)).sum())


def collapse(dead: int, latents: Tensor, outputs: Tensor) -> str | None:
    """What has collapsed, if anything has: all latent units are dead, or every image is given back as the same one."""
    if dead == latents.shape[1]:
        return f"all {dead} latent units are dead"
    if torch.all(outputs.var(dim=0) <= ALIVE):
        return "every image is given back as the same one"
    return None


def check_collapse(what: str | None, epochs: int, epoch: int, patience: int = PATIENCE) -> None:
    """Raise CollapsedError where a collapse has lasted for `patience` epochs: the first ones are always dull."""
    if what is not None and epochs >= patience:
        raise CollapsedError(
            f"{what}, for {epochs} epochs up to epoch {epoch}: lower optimiser.learning_rate or loss.beta"
        )
