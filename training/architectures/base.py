"""What every architecture offers to the losses, the loop and the export."""

from abc import ABC, abstractmethod
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn

Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


class Config(BaseModel):
    """A frozen configuration that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Posterior(NamedTuple):
    """Latents (batch, latent_dim): the mean, and for a variational model the logarithm of the variance."""

    mean: Tensor
    log_variance: Tensor | None = None

    def sample(self, generator: torch.Generator) -> Tensor:
        """Mean plus noise of the posterior's standard deviation (Kingma and Welling 2014, section 2.4)."""
        if self.log_variance is None:
            return self.mean
        noise = torch.randn(self.mean.shape, generator=generator, device=generator.device)
        return self.mean + (0.5 * self.log_variance).exp() * noise


class Autoencoder(nn.Module, ABC):
    """Images are float (batch, channels, height, width) in 0..1."""

    latent_dim: int
    output: nn.Module

    @abstractmethod
    def encode(self, images: Tensor) -> Posterior:
        """Images to latents."""

    @abstractmethod
    def decode_raw(self, latents: Tensor) -> Tensor:
        """Latents (batch, latent_dim) to images before the output's activation."""

    @abstractmethod
    def describe(self) -> str:
        """The architecture in a line, for the model card."""

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to images in 0..1."""
        images: Tensor = self.output(self.decode_raw(latents))
        return images


class Clamp(nn.Module):
    """Clamp to 0..1; while training it leaks a little, so that a pixel beyond the range still has a gradient.

    For images that are mostly pure black and white it beats a sigmoid, which only reaches them at infinity.
    """

    def __init__(self, leak: float = 0.01) -> None:
        super().__init__()
        self.leak = leak

    def forward(self, raw: Tensor) -> Tensor:
        clamped = raw.clamp(0, 1)
        return clamped + self.leak * (raw - clamped) if self.training else clamped


OUTPUTS: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "clamp": Clamp}
OutputName = Literal["sigmoid", "clamp"]
