"""The interface of a backbone: images to feature maps by stride."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from bundle.manifest import Weights as Weights


class Backbone(nn.Module, ABC):
    """A network in evaluation mode, with weights from elsewhere."""

    weights: Weights  # their source and licence
    strides: tuple[int, ...]  # of its feature maps, ascending

    @abstractmethod
    def forward(self, images: Tensor, depth: int) -> dict[int, Tensor]:
        """Feature maps, by stride, of images (n, 3, height, width), 0 to 255.

        Each is float (n, channels, height / stride, width / stride), the last one of its stride.
        `depth` is the largest stride.
        """

    @abstractmethod
    def describe(self) -> str:
        """The network in a few words, for the model card."""
