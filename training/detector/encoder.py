"""The encoder graph of a detector: images to an embedding and to feature maps for its scorer."""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bundle.manifest import FEATURES, Weights
from bundle.tensors import TensorName, parse_tensor_name
from training.architectures.backbones import BACKBONES, Backbone, BackboneName
from training.detector.scattering import Scattering

DEEPEST_STRIDE = 16  # pixels between positions of the feature map that is pooled
FEATURE_STRIDES = (8, 16)  # pixels, of the feature maps that a scorer takes

EncoderName = BackboneName | Literal["scattering"]


class Encoder(nn.Module, ABC):
    """Network from images uint8 (n, height, width, channels) to the tensors named in `outputs`."""

    outputs: tuple[TensorName, ...]
    weights: Weights | None = None
    any_size: bool = False  # true if its graph has the same nodes at every working size

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, ...]: ...

    @abstractmethod
    def describe(self) -> str:
        """A short description, for the model card."""


class BackboneEncoder(Encoder):
    """Embedding, the pooled and L2-normalised deepest feature map, and the maps of some strides."""

    any_size = True

    def __init__(self, backbone: Backbone, depth: int, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.backbone, self.depth, self.strides = backbone, depth, strides
        self.weights = backbone.weights
        self.outputs = (
            "latents",
            *(parse_tensor_name(f"{FEATURES}{stride}") for stride in strides),
        )
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(parameter.half().float())  # as bundles store weights

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone(images.permute(0, 3, 1, 2).float(), self.depth)
        embedding = functional.normalize(maps[self.depth].mean(dim=(2, 3)))
        return (embedding, *(maps[stride] for stride in self.strides))

    def describe(self) -> str:
        return f"{self.backbone.describe()}, to stride {self.depth}"


class ScatteringEncoder(Encoder):
    """Scattering coefficients, for small grey images that are anomalous as a whole."""

    outputs: tuple[TensorName, ...] = ("latents",)

    def __init__(self) -> None:
        super().__init__()
        self.scattering = Scattering()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self.scattering(images.permute(0, 3, 1, 2).float() / 255),)

    def describe(self) -> str:
        return "scattering coefficients"


def build(name: EncoderName) -> Encoder:
    """Build the encoder. Raises DataError if the weights of its backbone are missing."""
    if name == "scattering":
        return ScatteringEncoder().eval()
    return BackboneEncoder(BACKBONES[name](), DEEPEST_STRIDE, FEATURE_STRIDES).eval()
