"""Registry of the hostile files, and what several formats need to make them."""

import io
import struct
from collections.abc import Callable

import numpy as np
from PIL import Image

MAX_BYTES = 10**6
SIDE_PIXELS = 5_656  # of a square of 32 million pixels

FIXED: dict[str, Callable[[], bytes]] = {}
SIZED: dict[str, Callable[[int, int], bytes]] = {}  # by width and height


def fixed(make: Callable[[], bytes]) -> Callable[[], bytes]:
    """Register a file of one size, under the name of the function."""
    FIXED[make.__name__.replace("_", " ").strip()] = make
    return make


def sized(make: Callable[[int, int], bytes]) -> Callable[[int, int], bytes]:
    """Register a file of any width and height, under the name of the function."""
    SIZED[make.__name__.replace("_", " ").strip()] = make
    return make


def encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    """Encode an image."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def blank(mode: str, width: int, height: int) -> Image.Image:
    """Make a black image."""
    return Image.new(mode, (width, height))


def noise(side: int, channels: int = 3) -> Image.Image:
    """Make a square image of random pixels."""
    shape = (side, side, channels) if channels > 1 else (side, side)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def make_directory(entries: int, total: int) -> bytes:
    """Make a TIFF directory whose entries all refer to the same bytes, as many as fit."""
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", entries)
    size = total - len(head) - 12 * entries - 4
    start = len(head) + 12 * entries + 4
    body = b"".join(
        struct.pack("<HHII", 0x8000 + index % 0x7000, 1, size, start) for index in range(entries)
    )
    return head + body + struct.pack("<I", 0) + bytes(size)
