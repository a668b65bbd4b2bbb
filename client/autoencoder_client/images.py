"""Images as the service takes them: bytes of a file."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from autoencoder_client.errors import InvalidRequest

AnyImage = str | Path | bytes | Image.Image | npt.NDArray[np.uint8]
Images = Sequence[AnyImage] | npt.NDArray[np.uint8]


def encode(image: AnyImage) -> bytes:
    """Return the bytes of an image file; PIL images and arrays become PNG.

    Raises InvalidRequest if the file cannot be read, or the array is no image.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | Path):
        try:
            return Path(image).read_bytes()
        except OSError as error:
            raise InvalidRequest(f"{image} cannot be read: {error.strerror}") from None
    return _encode_png(image if isinstance(image, Image.Image) else _from_array(image))


def decode(data: bytes) -> npt.NDArray[np.uint8]:
    """Return an image of the service as uint8 (height, width) or (height, width, channels)."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def _from_array(array: npt.NDArray[Any]) -> Image.Image:
    pixels = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise InvalidRequest(
            f"the array is {array.dtype} {array.shape}; send uint8 (height, width[, channels])"
        )
    return Image.fromarray(pixels)


def _encode_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
