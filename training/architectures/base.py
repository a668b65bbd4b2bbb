"""The interface of every architecture to objectives, loop and export; layers that they share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

ActivationName = Literal["relu", "sigmoid", "tanh", "gelu", "linear"]
ACTIVATIONS: dict[ActivationName, type[nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "linear": nn.Identity,
}


class Posterior(NamedTuple):
    """Latents (batch, latent_dim): the mean, and the log variance of a variational model."""

    mean: Tensor
    log_variance: Tensor | None = None

    def sample(self, noise: Tensor) -> Tensor:
        """The mean plus scaled noise; `noise` (..., batch, latent_dim) is standard normal.

        Reparameterisation, Kingma and Welling 2014, section 2.4. Without a variance it is the mean.
        """
        if self.log_variance is None:
            return self.mean
        return self.mean + (0.5 * self.log_variance).exp() * noise


class Autoencoder(nn.Module, ABC):
    """An autoencoder of images, float (batch, channels, height, width) in 0..1."""

    latent_dim: int
    variational = False
    encoder: nn.Module
    decoder: nn.Module
    output: nn.Module

    @property
    def encoded_dim(self) -> int:
        """Number of the encoder's outputs: means, and log variances of a variational model."""
        return 2 * self.latent_dim if self.variational else self.latent_dim

    def posterior(self, encoded: Tensor) -> Posterior:
        """Posterior from the encoder's output (batch, encoded_dim).

        Kingma and Welling 2014, appendix C.2.
        """
        return Posterior(*encoded.chunk(2, dim=1)) if self.variational else Posterior(encoded)

    @abstractmethod
    def encode(self, images: Tensor) -> Posterior:
        """The posterior of images."""

    @abstractmethod
    def decode_raw(self, latents: Tensor) -> Tensor:
        """Images of latents (batch, latent_dim), before the output's activation."""

    @abstractmethod
    def describe(self) -> str:
        """The architecture in a line, for the model card."""

    def refine(self, images: Tensor, posterior: Posterior) -> Posterior:  # noqa: ARG002
        """The posterior that is served, from the one that is trained; by default the same."""
        return posterior

    def decode(self, latents: Tensor) -> Tensor:
        """Images in 0..1 of latents (batch, latent_dim)."""
        images: Tensor = self.output(self.decode_raw(latents))
        return images


class Clamp(nn.Module):
    """Clamp to 0..1. In training it leaks, so that pixels beyond the range have a gradient.

    It suits images that are mostly pure black and white, because a sigmoid reaches these only at
    infinity.
    """

    def __init__(self, leak: float = 0.01) -> None:
        super().__init__()
        self.leak = leak

    def forward(self, raw: Tensor) -> Tensor:
        clamped = raw.clamp(0, 1)
        return clamped + self.leak * (raw - clamped) if self.training else clamped


class ContinuousBernoulliMean(nn.Module):
    """Mean of a continuous Bernoulli by its logits (Loaiza-Ganem and Cunningham 2019, equation 8).

    The mean is (1 + L(logits / 2)) / 2 with Langevin's function L(x) = coth(x) - 1 / x.
    """

    def forward(self, logits: Tensor) -> Tensor:
        x = logits / 2
        small = x.abs() < 0.5
        # Near 0 the two terms cancel in float32, so the Taylor series is used, exact to 1e-9.
        square = x.square()
        series = x * (
            1 / 3
            - square * (1 / 45 - square * (2 / 945 - square * (1 / 4725 - square * 2 / 93555)))
        )
        large = torch.where(small, 1, x)
        return (1 + torch.where(small, series, 1 / large.tanh() - 1 / large)) / 2


OutputName = Literal["sigmoid", "clamp", "continuous-bernoulli"]
OUTPUTS: dict[OutputName, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "clamp": Clamp,
    "continuous-bernoulli": ContinuousBernoulliMean,
}


class Classifier(nn.Module):
    """A softmax layer on the latents of an autoencoder."""

    def __init__(self, autoencoder: Autoencoder, classes: int) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.head = nn.Linear(autoencoder.latent_dim, classes)

    def classify(self, latents: Tensor) -> Tensor:
        """Probabilities (batch, classes) of latents (batch, latent_dim)."""
        return torch.softmax(self.head(latents), dim=1)


class ResidualLayer(nn.Module):
    """x + gain * linear(gelu(linear(norm(x)))), with a gain that starts at 0.

    De and Smith 2020, section 3.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
        )
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.layers(x)
        return x + self.gain * residual


def stack(
    widths: Sequence[int], activation: ActivationName, last: ActivationName | None = None
) -> list[nn.Sequential]:
    """Fully connected layers of these widths, with activations; `last` replaces the last one."""
    names = [activation] * (len(widths) - 1)
    if last is not None:
        names[-1:] = [last]
    return [
        nn.Sequential(nn.Linear(before, after), ACTIVATIONS[name]())
        for (before, after), name in zip(pairwise(widths), names, strict=True)
    ]
