"""Types of arrays: images, latents and all that graphs take and give."""

from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.floating]

TensorName = Literal[  # of the inputs and outputs of graphs; `bundle.manifest` describes them
    "images",
    "latents",
    "log_variances",
    "reconstructions",
    "intensities",
    "logits",
    "errors",
    "scores",
    "error_maps",
    "latent_distances",
    "probabilities",
    "features_2",
    "features_4",
    "features_8",
    "features_16",
    "features_32",
]
Tensors = dict[TensorName, Array]

Pixels = npt.NDArray[np.uint8]  # one image, (height, width, channels), 0 to 255
Images = npt.NDArray[np.uint8]  # (n, height, width, channels), 0 to 255
Labels = npt.NDArray[np.int64]  # (n,), the index of each image's class


def parse_tensor_name(text: str) -> TensorName:
    """The name of a tensor. Raises ValueError if there is no such tensor."""
    if text not in _TENSOR_NAMES:
        raise ValueError(f"no graph of a bundle has a tensor {text!r}")
    return cast(TensorName, text)


_TENSOR_NAMES = frozenset(get_args(TensorName))
