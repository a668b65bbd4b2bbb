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
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | Path):
        try:
            return Path(image).read_bytes()
        except (OSError, ValueError) as error:  # ValueError: of a path with a null character
            reason = getattr(error, "strerror", None) or str(error)
            raise InvalidRequest(f"{image} cannot be read: {reason}") from None
    return _encode_png(image if isinstance(image, Image.Image) else _from_array(image))


def decode(data: bytes) -> npt.NDArray[np.uint8]:
    """Return an image of the service as uint8 (height, width) or (height, width, channels)."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def _from_array(array: Any) -> Image.Image:
    pixels = np.asarray(array)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise InvalidRequest(
            f"an image is {pixels.dtype} {pixels.shape}; send uint8 (height, width) or "
            "(height, width, channels) with 1, 3 or 4 channels"
        )
    if not pixels.size:
        raise InvalidRequest("an image has no pixels; leave it out")
    return Image.fromarray(pixels)


def _encode_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    try:
        image.save(buffer, "PNG", compress_level=1)
    except OSError as error:  # of modes that PNG has not, such as CMYK
        raise InvalidRequest(f"{error}; convert the image to RGB") from None
    return buffer.getvalue()
