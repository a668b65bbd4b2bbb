"""A small U-Net that marks what is foreign in an image, from the image, its reconstruction and how they differ."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.similarity import deviation_map


class Segmenter(nn.Module):
    """The discriminative network of DRAEM (Zavrtanik, Kristan and Skocaj 2021, section 3.2), much smaller.

    In place of the reconstruction it sees the absolute difference from it, and the deviation of the gradients.
    """

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        before = 2 * channels + 1
        self.down = nn.ModuleList()
        for width in widths:
            self.down.append(
                nn.Sequential(
                    nn.Conv2d(before, width, 4, stride=2, padding=1),
                    nn.ReLU(),
                    nn.Conv2d(width, width, 3, padding=1),
                    nn.ReLU(),
                )
            )
            before = width
        self.up = nn.ModuleList()
        for width in widths[-2::-1]:
            self.up.append(nn.Sequential(nn.Conv2d(before + width, width, 3, padding=1), nn.ReLU()))
            before = width
        self.last = nn.Conv2d(before, 1, 3, padding=1)

    def forward(self, images: Tensor, restored: Tensor) -> Tensor:
        """Logits (n, 1, height, width) of images and restored ones (n, channels, height, width) in 0..1."""
        deviation = deviation_map(images, restored)[:, None]
        seen = torch.cat([images, (images - restored).abs(), deviation], dim=1)
        levels = []
        found = seen
        for layer in self.down:
            found = layer(found)
            levels.append(found)
        for layer, level in zip(self.up, levels[-2::-1], strict=True):
            found = layer(torch.cat([_enlarged(found, level), level], dim=1))
        logits: Tensor = self.last(_enlarged(found, seen))
        return logits


def _enlarged(features: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(features, list(like.shape[2:]), mode="nearest")
