"""Decoding of images to uint8 arrays at a model's size, and encoding to PNG.

Training and the service use the same code.
"""

import io
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from bundle import decoding_cost
from bundle.errors import ImageTooLarge, InvalidImage, UnsupportedFormat
from bundle.manifest import InputSpec
from bundle.tensors import Pixels

Mode = Literal["L", "RGB"]
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
COLOUR_SAMPLE_SIDE_PIXELS = 64  # at most
# An image is in colour if over 1 % of its pixels have channels that lie more than 20 levels apart:
# what JPEG makes of grey stays below that, and so does a slight tint.
COLOUR_LEVELS, COLOUR_SHARE = 20, 0.01
MAX_EXIF_BYTES = 2**16  # as in JPEG; Pillow parses them in Python
_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F"})
_PNG_BEGIN, _PNG_END = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"IEND\xaeB`\x82"
# By bit depth, colour type, compression, filter and interlace.
_PLAIN_PNG_MODES = {bytes([8, 0, 0, 0, 0]): "L", bytes([8, 2, 0, 0, 0]): "RGB"}
_TOO_LARGE_ERRORS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


class DecodedImage(NamedTuple):
    """An image at the model's size, uint8 (height, width, channels), and the size that it came in.

    `lost_colour` says that the image is in colour, but the model takes grey images.
    """

    pixels: Pixels
    original_size: tuple[int, int]  # height, width
    lost_colour: bool = False


def decode(data: bytes, spec: InputSpec, max_pixels: int) -> DecodedImage:
    """Decode one image, apply its EXIF orientation, and convert it to the model's mode and size.

    Transparency is composed on white. Grey of 16 bits is scaled to 8 (`spec.white_16_bit` to 255).
    An animation is read as its first frame. A JPEG that is much larger than the model is decoded at
    a half, a quarter or an eighth of its size, but at no less than `spec.reducing_gap` times the
    model's. Raises UnsupportedFormat, ImageTooLarge (before any pixel is decoded) or InvalidImage.
    """
    plain = _decode_plain_png(data, spec, max_pixels)
    if plain is not None:
        return plain
    with open_image(data, max_pixels) as image:
        return _decode(image, data, spec)


def decode_small(data: bytes, spec: InputSpec, max_pixels: int, small: int) -> DecodedImage | None:
    """Decode an image of at most `small` pixels as `decode` does; None for a larger one."""
    plain = _decode_plain_png(data, spec, min(small, max_pixels))
    if plain is not None:
        return plain
    with open_image(data, max_pixels) as image:
        return _decode(image, data, spec) if image.width * image.height <= small else None


def decode_original(data: bytes, spec: InputSpec, max_pixels: int) -> Pixels:
    """Decode an image as `decode` does, but to RGB at its own size: uint8 (height, width, 3)."""
    with open_image(data, max_pixels) as image:
        _load(image, data)
        _apply_orientation(image)
        return np.asarray(_convert(image, "RGB", spec.white_16_bit))


@contextmanager
def open_image(data: bytes, max_pixels: int) -> Iterator[ImageFile]:
    """Open an image whose decoding is affordable; every error becomes one of `bundle.errors`."""
    try:
        decoding_cost.check_file(data)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            decoding_cost.check_image(image, data, max_pixels)
            yield image
    except UnidentifiedImageError:
        raise _build_unidentified_error(data) from None
    except _TOO_LARGE_ERRORS as error:
        raise ImageTooLarge(str(error)) from None
    except (InvalidImage, ImageTooLarge, UnsupportedFormat):
        raise
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files.
        raise InvalidImage(f"the image cannot be decoded: {error}") from error


def _decode(image: Image.Image, data: bytes, spec: InputSpec) -> DecodedImage:
    original = image.size
    if image.format == "JPEG":
        # The mode is not set, because the draft would make grey of colours in another way.
        image.draft(None, (math.ceil(spec.reducing_gap * max(spec.height, spec.width)),) * 2)
    reduced = image.size
    _load(image, data)
    _apply_orientation(image)
    width, height = (
        image.size if reduced == original else original if image.size == reduced else original[::-1]
    )
    return _convert_and_fit(image, (width, height), spec)


def _convert_and_fit(
    image: Image.Image, original: tuple[int, int], spec: InputSpec
) -> DecodedImage:
    mode: Mode = "L" if spec.channels == 1 else "RGB"
    pixels = fit(np.asarray(_convert(image, mode, spec.white_16_bit)), spec)
    return DecodedImage(pixels, original[::-1], spec.channels == 1 and _is_in_colour(image))


def _decode_plain_png(data: bytes, spec: InputSpec, max_pixels: int) -> DecodedImage | None:
    """Decode a small PNG of 8 bits a channel that holds nothing but its pixels; None for another.

    Pillow reads chunks in Python, which takes longer than the pixels of a small image.
    """
    mode = _PLAIN_PNG_MODES.get(data[24:29])
    end = 41 + int.from_bytes(data[33:37], "big")
    if (
        mode is None
        or data[:16] != _PNG_BEGIN
        or data[37:41] != b"IDAT"
        or len(data) != end + 16
        or data[end + 4 :] != b"\0\0\0\0" + _PNG_END
        or zlib.crc32(data[12:29]) != int.from_bytes(data[29:33], "big")
    ):
        return None
    size = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if not 0 < size[0] * size[1] <= min(decoding_cost.SMALL_PIXELS, max_pixels):
        return None
    try:
        image = Image.frombytes(mode, size, data[41:end], "zip", mode)
    except ValueError:  # for damaged pixels, of which Pillow's reader says more
        return None
    return _convert_and_fit(image, size, spec)


def _load(image: Image.Image, data: bytes) -> None:
    """Decode the pixels. Raises InvalidImage for a PNG without its end, which Pillow ignores."""
    image.load()
    if image.format == "PNG" and _PNG_END not in data:
        raise InvalidImage("the image is truncated: its last chunk is missing")


def fit(pixels: Pixels, spec: InputSpec) -> Pixels:
    """Resize (h, w) or (h, w, channels) to the model's (height, width, channels)."""
    return resize(pixels, (spec.height, spec.width), spec).reshape(spec.shape)


def resize(pixels: Pixels, size: tuple[int, int], spec: InputSpec) -> Pixels:
    """Resize uint8 (h, w[, channels]) to (height, width) with the model's filter."""
    if pixels.shape[:2] == size:
        return pixels
    squeezed = pixels[..., 0] if pixels.shape[2:] == (1,) else pixels
    resized = Image.fromarray(squeezed).resize(size[::-1], Image.Resampling[spec.resample.upper()])
    return np.asarray(resized).reshape(*size, *pixels.shape[2:])


def check_array(array: npt.NDArray[np.generic], spec: InputSpec) -> Pixels:
    """Images as uint8 (n, height, width, channels). Raises InvalidImage for other arrays."""
    shape = f"(n, {spec.height}, {spec.width}, {spec.channels})"
    if spec.channels == 1:
        shape = f"(n, {spec.height}, {spec.width}) or {shape}"
    if array.dtype != np.uint8:
        raise InvalidImage(f"images must be uint8 {shape}, not {array.dtype}")
    if array.shape[1:] == spec.shape:
        return array.astype(np.uint8, copy=False)
    if spec.channels == 1 and array.shape[1:] == spec.shape[:2]:
        return array.astype(np.uint8, copy=False)[..., None]
    raise InvalidImage(f"images must be uint8 {shape}, not {array.shape}")


def encode_png(pixels: Pixels) -> bytes:
    """A PNG of uint8 (height, width), (height, width, 1) or (height, width, 3)."""
    squeezed = pixels[..., 0] if pixels.shape[2:] == (1,) else pixels
    buffer = io.BytesIO()
    Image.fromarray(squeezed).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _apply_orientation(image: Image.Image) -> None:
    """Apply the EXIF orientation, if it is readable."""
    if not image.info or len(image.info.get("exif", b"")) > MAX_EXIF_BYTES:
        return  # without EXIF data; Pillow turns TIFF itself
    with suppress(Exception):  # Pillow raises nearly anything here, and the pixels are complete
        ImageOps.exif_transpose(image, in_place=True)


def _is_in_colour(image: Image.Image) -> bool:
    """True if an image is in colour, judged by a sample of its pixels unless its mode is grey."""
    if image.mode in _GREY_MODES or image.mode.startswith("I;16"):
        return False
    size = min(image.width, COLOUR_SAMPLE_SIDE_PIXELS), min(image.height, COLOUR_SAMPLE_SIDE_PIXELS)
    sample = image if size == image.size else image.resize(size, Image.Resampling.NEAREST)
    # By planes, because numpy takes many times as long to reduce an axis of three.
    red, green, blue = (np.asarray(plane) for plane in _compose(sample, "RGB").split())
    largest = np.maximum(np.maximum(red, green), blue)
    apart = largest - np.minimum(np.minimum(red, green), blue)
    return bool(np.count_nonzero(apart > COLOUR_LEVELS) > COLOUR_SHARE * apart.size)


def _convert(image: Image.Image, mode: Mode, white: int) -> Image.Image:
    """The image in 8 bits a channel, on white; 16-bit pixels of the value `white` become 255."""
    if image.mode == "F":
        raise InvalidImage(
            "floating-point pixels have no defined range; save the image with 8 or 16 bits "
            "a channel"
        )
    if image.mode == "I" or image.mode.startswith("I;16"):
        return Image.fromarray(_reduce_to_8_bits(image, white)).convert(mode)
    return _compose(image, mode)


def _compose(image: Image.Image, mode: Mode) -> Image.Image:
    """An image of 8 bits a channel in another mode, with its transparency composed on white."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert(mode)
    return image if image.mode == mode else image.convert(mode)


def _reduce_to_8_bits(image: Image.Image, white: int) -> Pixels:
    wide = np.asarray(image)
    if wide.dtype != np.uint16 and (wide.min() < 0 or wide.max() > 65535):
        raise InvalidImage(
            "pixels beyond 16 bits have no defined range; save the image with 8 or 16 bits "
            "a channel"
        )
    narrow: Pixels = _build_8_bit_table(white)[wide]
    if isinstance(transparent := image.info.get("transparency"), int):
        narrow[wide == transparent] = 255
    return narrow


@lru_cache(maxsize=8)
def _build_8_bit_table(white: int) -> Pixels:
    """Table (65536,) of 8-bit values: `white` and above become 255, halves are rounded up."""
    return np.minimum((np.arange(65536) * 255 + white // 2) // white, 255).astype(np.uint8)


def is_readable(data: bytes) -> bool:
    """True if the bytes begin as a supported format."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS):
            return True
    except Exception:  # Pillow's plugins raise nearly anything on damaged files.
        return False


def _build_unidentified_error(data: bytes) -> UnsupportedFormat | InvalidImage:
    """The error for bytes in no supported format."""
    head = data[:32].lstrip()
    for name, beginnings in _OTHER_FORMATS.items():
        if head.startswith(beginnings) or data[4:12] in beginnings:
            return UnsupportedFormat(
                f"{name} images are not supported; send one of {', '.join(FORMATS)}"
            )
    return InvalidImage("the bytes are not an image, or its header is damaged")


# Recognised by their first bytes alone, because each reader of Pillow can be attacked.
_OTHER_FORMATS = {
    "AVIF": (b"ftypavif", b"ftypavis"),
    "HEIC": (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1"),
    "JPEG 2000": (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
    "JPEG XL": (b"\xff\x0a", b"\0\0\0\x0cJXL "),
    "ICO": (b"\0\0\1\0",),
    "PSD": (b"8BPS",),
    "PNM": tuple(f"P{digit}".encode() for digit in range(1, 8)),
    "SVG": (b"<svg", b"<?xml"),
    "PDF": (b"%PDF",),
}
