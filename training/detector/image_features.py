"""Features of images: the tensors that score components take."""

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
FeatureBatch = Mapping[str, Tensor]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ImageFeatures:
    """Features of images: some rows of arrays by name. Feature maps are fp16 in memory."""

    arrays: Tensors
    indices: Indices
    batch_size: int = MAX_BATCH_IMAGES

    @classmethod
    def from_arrays(cls, arrays: Tensors, batch_size: int = MAX_BATCH_IMAGES) -> "ImageFeatures":
        """All rows of the arrays."""
        return cls(arrays, np.arange(len(next(iter(arrays.values())))), batch_size)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def latents(self) -> Tensor:
        return torch.from_numpy(self.arrays["latents"][self.indices])

    def take(self, indices: Indices) -> "ImageFeatures":
        return ImageFeatures(self.arrays, self.indices[indices], self.batch_size)

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """The tensors, as the graphs pass them on, in batches of images."""
        for start in range(0, len(self), self.batch_size):
            chosen = self.indices[start : start + self.batch_size]
            batch = {name: torch.from_numpy(array[chosen]) for name, array in self.arrays.items()}
            yield {
                name: tensor if name == "images" else tensor.float()
                for name, tensor in batch.items()
            }


class ExportedEncoder:
    """The exported encoder of one working size, run in batches.

    Components are fitted to its outputs, so they include its rounding.
    """

    def __init__(
        self, encode: Callable[[Images], Tensors], outputs: tuple[TensorName, ...]
    ) -> None:
        """Take a function that runs the encoder graph, and the outputs that components see."""
        self._encode, self._outputs = encode, outputs

    def encode(self, images: Images, keep_images: bool) -> ImageFeatures:
        """Encode images uint8 (n, height, width, channels); keep them for components on pixels."""
        outputs: dict[TensorName, list[npt.NDArray[np.floating]]] = {
            name: [] for name in self._outputs
        }
        batch_size = max(
            1, min(MAX_BATCH_IMAGES, MAX_BATCH_PIXELS // (images.shape[1] * images.shape[2]))
        )
        for start in range(0, len(images), batch_size):
            batch = self._encode(images[start : start + batch_size])
            for name, parts in outputs.items():
                dtype = np.float32 if name == "latents" else np.float16
                parts.append(batch[name].astype(dtype))
        arrays: Tensors = {name: np.concatenate(parts) for name, parts in outputs.items()}
        if keep_images:
            arrays["images"] = images
        return ImageFeatures.from_arrays(arrays, batch_size)


def join(parts: Sequence[ImageFeatures]) -> ImageFeatures:
    """Concatenate features of images."""
    names = parts[0].arrays
    arrays = {
        name: np.concatenate([part.arrays[name][part.indices] for part in parts]) for name in names
    }
    return ImageFeatures.from_arrays(arrays, parts[0].batch_size)
