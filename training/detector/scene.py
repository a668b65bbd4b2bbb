"""Encoded images: the tensors that score components take."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bundle.tensors import Images, TensorName, Tensors

MAX_BATCH_IMAGES = 8  # encoded or scored at once, to limit memory
MAX_BATCH_PIXELS = MAX_BATCH_IMAGES * 256 * 256

# By name: `images` (n, height, width, channels), `latents` and `features_<stride>`.
Scene = Mapping[str, Tensor]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Scenes:
    """Encoded images: some rows of arrays by name. Feature maps are fp16 in memory."""

    arrays: Tensors
    indices: Indices
    batch: int = MAX_BATCH_IMAGES

    @classmethod
    def from_arrays(cls, arrays: Tensors, batch: int = MAX_BATCH_IMAGES) -> "Scenes":
        """All rows of the arrays."""
        return cls(arrays, np.arange(len(next(iter(arrays.values())))), batch)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def latents(self) -> Tensor:
        return torch.from_numpy(self.arrays["latents"][self.indices])

    def take(self, indices: Indices) -> "Scenes":
        return Scenes(self.arrays, self.indices[indices], self.batch)

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """The tensors, as the graphs pass them on, in batches of images."""
        for start in range(0, len(self), self.batch):
            chosen = self.indices[start : start + self.batch]
            scene = {name: torch.from_numpy(array[chosen]) for name, array in self.arrays.items()}
            yield {
                name: tensor if name == "images" else tensor.float()
                for name, tensor in scene.items()
            }


class SceneReader:
    """Reader of images through the exported encoder of one working size.

    Components are fitted to its outputs, so they include its rounding.
    """

    def __init__(
        self, encode: Callable[[Images], Tensors], outputs: tuple[TensorName, ...]
    ) -> None:
        """Take a function that runs the encoder graph, and the outputs that components see."""
        self._encode, self._outputs = encode, outputs

    def read(self, images: Images, keep_images: bool) -> Scenes:
        """Encode images uint8 (n, height, width, channels); keep them for components on pixels."""
        batches: dict[TensorName, list[npt.NDArray[np.floating]]] = {
            name: [] for name in self._outputs
        }
        batch = max(
            1, min(MAX_BATCH_IMAGES, MAX_BATCH_PIXELS // (images.shape[1] * images.shape[2]))
        )
        for start in range(0, len(images), batch):
            outputs = self._encode(images[start : start + batch])
            for name, arrays in batches.items():
                dtype = np.float32 if name == "latents" else np.float16
                arrays.append(outputs[name].astype(dtype))
        encoded: Tensors = {name: np.concatenate(arrays) for name, arrays in batches.items()}
        return Scenes.from_arrays(encoded | {"images": images} if keep_images else encoded, batch)


def join(parts: Sequence[Scenes]) -> Scenes:
    """Concatenate encoded images."""
    names = parts[0].arrays
    arrays = {
        name: np.concatenate([part.arrays[name][part.indices] for part in parts]) for name in names
    }
    return Scenes.from_arrays(arrays, parts[0].batch)
