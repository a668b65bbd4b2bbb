"""Tensors that score components see, of images that the exported encoder has seen."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bundle.tensors import Tensors

BATCH = 8  # images at most that are encoded or scored at once: memory stays flat
MOST_PIXELS = BATCH * 256 * 256  # of these images

Scene = Mapping[
    str, Tensor
]  # `images` (n, height, width, channels), `latents` and `features_<stride>` by name
Images = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Scenes:
    """Some of the images that arrays by name are of; feature maps are float16 in memory."""

    arrays: Tensors
    indices: Indices
    batch: int = BATCH

    @classmethod
    def of(cls, arrays: Tensors, batch: int = BATCH) -> "Scenes":
        return cls(arrays, np.arange(len(next(iter(arrays.values())))), batch)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def latents(self) -> Tensor:
        return torch.from_numpy(self.arrays["latents"][self.indices])

    def take(self, indices: Indices) -> "Scenes":
        return Scenes(self.arrays, self.indices[indices], self.batch)

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """The tensors as the graphs hand them on, a few images at a time."""
        for start in range(0, len(self), self.batch):
            chosen = self.indices[start : start + self.batch]
            part = {name: torch.from_numpy(array[chosen]) for name, array in self.arrays.items()}
            yield {name: each if name == "images" else each.float() for name, each in part.items()}


class SceneReader:
    """The exported encoder of one working size: components are fitted to its answers, rounding included."""

    def __init__(self, encode: Callable[[Images], Tensors], outputs: tuple[str, ...]) -> None:
        """`encode` runs the encoder graph; `outputs` are those of its outputs that components see."""
        self._encode, self._outputs = encode, outputs

    def read(self, images: Images, keep_images: bool) -> Scenes:
        """Encode images uint8 (n, height, width, channels); `keep_images` for components that take them."""
        parts: dict[str, list[npt.NDArray[np.floating]]] = {name: [] for name in self._outputs}
        batch = max(1, min(BATCH, MOST_PIXELS // (images.shape[1] * images.shape[2])))
        for start in range(0, len(images), batch):
            found = self._encode(images[start : start + batch])
            for name, arrays in parts.items():
                arrays.append(found[name].astype(np.float32 if name == "latents" else np.float16))
        encoded: Tensors = {name: np.concatenate(each) for name, each in parts.items()}
        return Scenes.of(encoded | {"images": images} if keep_images else encoded, batch)


def join(parts: Sequence[Scenes]) -> Scenes:
    """The images of all parts, one after the other."""
    names = parts[0].arrays
    arrays = {
        name: np.concatenate([part.arrays[name][part.indices] for part in parts]) for name in names
    }
    return Scenes.of(arrays, parts[0].batch)
