"""Types of arrays: images, latents and all that graphs take and give."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.floating]
Tensors = dict[str, Array]  # by the names that they have in the graphs

Pixels = npt.NDArray[np.uint8]  # one image, (height, width, channels), 0 to 255
Images = npt.NDArray[np.uint8]  # (n, height, width, channels), 0 to 255
Labels = npt.NDArray[np.int64]  # (n,), the index of each image's class
