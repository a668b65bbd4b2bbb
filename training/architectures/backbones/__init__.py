"""Backbones: networks, trained elsewhere, whose feature maps are used.

To add a backbone, write a `Backbone` in a file of its own, and add it to `BACKBONES`.
"""

from collections.abc import Callable, Mapping
from typing import Literal

from training.architectures.backbones.base import Backbone as Backbone
from training.architectures.backbones.base import Weights as Weights
from training.architectures.backbones.efficientnet_lite import EfficientNetLite0

BackboneName = Literal["efficientnet-lite0"]
BACKBONES: Mapping[BackboneName, Callable[[], Backbone]] = {
    "efficientnet-lite0": EfficientNetLite0.pretrained
}
