"""Fully connected autoencoders: mirrored layers, or residual blocks."""

from typing import Literal, Self

from pydantic import NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from bundle.manifest import InputSpec
from training.architectures.base import (
    ACTIVATIONS,
    OUTPUTS,
    ActivationName,
    Autoencoder,
    OutputName,
    Posterior,
    ResidualLayer,
    stack,
)
from training.architectures.refinement import step_towards
from training.config import Config, Widths

MAX_REFINED_LATENTS = 16  # because a step decodes two images for each


class DenseConfig(Config):
    """A stack of fully connected layers, mirrored in the decoder."""

    kind: Literal["dense"] = "dense"
    """Architecture."""
    widths: Widths
    """Widths of the encoder's layers; the last is the number of latents."""
    activation: ActivationName = "relu"
    """Activation of all layers but the last of encoder and decoder."""
    code_activation: ActivationName | None = None
    """Activation of the encoder's last layer; unset: as `activation`."""
    variational: bool = False
    """Give the latents a variance, by which `sample` draws."""
    output: OutputName = "clamp"
    """Last activation; a loss that is a likelihood needs its own."""


class ResidualDenseConfig(Config):
    """Residual blocks of one width, in the encoder and in the decoder."""

    kind: Literal["residual-dense"] = "residual-dense"
    """Architecture."""
    width: PositiveInt
    """Width of every block."""
    blocks: NonNegativeInt = 2
    """Blocks in the encoder, and again in the decoder."""
    latent_dim: PositiveInt
    """Number of latents."""
    code_activation: ActivationName = "linear"
    """Activation of the encoder's last layer.

    A bounded activation, such as `tanh`, keeps outlying codes near the others.
    """
    refinement: NonNegativeInt = 0
    """Optimisation steps on the decoder, which improve the served codes."""
    variational: bool = False
    """Give the latents a variance, by which `sample` draws."""
    output: OutputName = "clamp"
    """Last activation; a loss that is a likelihood needs its own."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.refinement and (self.variational or self.code_activation != "tanh"):
            raise ValueError(
                'refinement needs codes in -1..1: set code_activation = "tanh" and'
                " variational = false"
            )
        if self.refinement and self.latent_dim > MAX_REFINED_LATENTS:
            raise ValueError(
                f"refinement needs small codes: latent_dim is {self.latent_dim}, and may be at most"
                f" {MAX_REFINED_LATENTS}"
            )
        return self


class DenseAutoencoder(Autoencoder):
    """A fully connected autoencoder; layer i of the encoder mirrors layer -1 - i of the decoder."""

    encoder: nn.Sequential
    decoder: nn.Sequential

    def __init__(self, config: DenseConfig | ResidualDenseConfig, spec: InputSpec) -> None:
        super().__init__()
        pixels = spec.channels * spec.height * spec.width
        self.variational = config.variational
        self.refinement = 0
        self.output = OUTPUTS[config.output]()
        self.flatten = nn.Flatten()
        self.unflatten = nn.Unflatten(1, (spec.channels, spec.height, spec.width))
        if isinstance(config, DenseConfig):
            self._build_stack(config, pixels)
        else:
            self._build_residual(config, pixels)

    def encode(self, images: Tensor) -> Posterior:
        return self.posterior(self.encoder(self.flatten(images)))

    def refine(self, images: Tensor, posterior: Posterior) -> Posterior:
        """The posterior after `refinement` steps of Levenberg's method towards the image."""
        latents = posterior.mean
        for _ in range(self.refinement):
            latents = step_towards(self.decode, images, latents)
        return posterior._replace(mean=latents)

    def decode_raw(self, latents: Tensor) -> Tensor:
        raw: Tensor = self.unflatten(self.decoder(latents))
        return raw

    def describe(self) -> str:
        return f"fully connected{' variational' if self.variational else ''}, {self._layers}"

    def _build_stack(self, config: DenseConfig, pixels: int) -> None:
        self.latent_dim = config.widths[-1]
        widths = [pixels, *config.widths]
        code = "linear" if config.variational else config.code_activation
        encoder = stack([*widths[:-1], self.encoded_dim], config.activation, code)
        self.encoder = nn.Sequential(*encoder)
        self.decoder = nn.Sequential(*stack(widths[::-1], config.activation, "linear"))
        self._layers = "-".join(map(str, widths + widths[-2::-1]))

    def _build_residual(self, config: ResidualDenseConfig, pixels: int) -> None:
        self.latent_dim, self.refinement = config.latent_dim, config.refinement
        code = "linear" if config.variational else config.code_activation
        self.encoder = _build_residual_layers(pixels, config, self.encoded_dim, code)
        self.decoder = _build_residual_layers(self.latent_dim, config, pixels, "linear")
        self._layers = (
            f"residual, {config.blocks} blocks of width {config.width} each way,"
            f" code {self.latent_dim}"
        )
        if config.refinement:
            self._layers += f" refined in {config.refinement} steps"


def _build_residual_layers(
    before: int, config: ResidualDenseConfig, after: int, activation: ActivationName
) -> nn.Sequential:
    blocks = [ResidualLayer(config.width, config.width) for _ in range(config.blocks)]
    last = [
        nn.LayerNorm(config.width),
        nn.GELU(),
        nn.Linear(config.width, after),
        ACTIVATIONS[activation](),
    ]
    return nn.Sequential(nn.Linear(before, config.width), *blocks, nn.Sequential(*last))
