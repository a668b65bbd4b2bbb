"""Fully connected autoencoders: one hidden layer or a stack, mirrored in the decoder; and residual ones."""

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
from training.architectures.refinement import nearer
from training.config import Config, Widths

MOST_REFINED = 16  # latents: each is decoded twice for a step


class DenseConfig(Config):
    kind: Literal["dense"] = "dense"
    widths: Widths  # of the encoder's layers; the last is latent_dim
    activation: ActivationName = "relu"
    code_activation: ActivationName | None = None  # of the encoder's last layer, if not the same
    variational: bool = False
    output: OutputName = "clamp"


class ResidualDenseConfig(Config):
    kind: Literal["residual-dense"] = "residual-dense"
    width: PositiveInt
    blocks: NonNegativeInt = 2  # in the encoder, and again in the decoder
    latent_dim: PositiveInt
    code_activation: ActivationName = (
        "linear"  # a bounded one, as tanh, keeps far-away codes near the others
    )
    refinement: NonNegativeInt = (
        0  # steps on the decoder by which the codes that are served fit better
    )
    variational: bool = False
    output: OutputName = "clamp"

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.refinement and (self.variational or self.code_activation != "tanh"):
            raise ValueError(
                'refinement is of codes in -1..1: give code_activation = "tanh", and not variational'
            )
        if self.refinement and self.latent_dim > MOST_REFINED:
            raise ValueError(
                f"refinement is of small codes: latent_dim may be at most {MOST_REFINED}"
            )
        return self


class DenseAutoencoder(Autoencoder):
    """The layers of the encoder, and those of the decoder from its end, mirror each other one by one."""

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
            self.latent_dim = config.widths[-1]
            widths = [pixels, *config.widths]
            code = "linear" if config.variational else config.code_activation
            self.encoder = nn.Sequential(
                *stack([*widths[:-1], self.encoded_dim], config.activation, code)
            )
            self.decoder = nn.Sequential(*stack(widths[::-1], config.activation, "linear"))
            self._layers = "-".join(map(str, widths + widths[-2::-1]))
        else:
            self.latent_dim, self.refinement = config.latent_dim, config.refinement
            code = "linear" if config.variational else config.code_activation
            self.encoder = _residual(pixels, config, self.encoded_dim, code)
            self.decoder = _residual(self.latent_dim, config, pixels, "linear")
            self._layers = f"residual, {config.blocks} blocks of width {config.width} each way, code {self.latent_dim}"
            self._layers += f" refined in {config.refinement} steps" if config.refinement else ""

    def encode(self, images: Tensor) -> Posterior:
        return self.posterior(self.encoder(self.flatten(images)))

    def refine(self, images: Tensor, posterior: Posterior) -> Posterior:
        """Of a code that is to be refined, some steps of Levenberg's method towards the image."""
        latents = posterior.mean
        for _ in range(self.refinement):
            latents = nearer(self.decode, images, latents)
        return posterior._replace(mean=latents)

    def decode_raw(self, latents: Tensor) -> Tensor:
        raw: Tensor = self.unflatten(self.decoder(latents))
        return raw

    def describe(self) -> str:
        return f"fully connected{' variational' if self.variational else ''}, {self._layers}"


def _residual(
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
