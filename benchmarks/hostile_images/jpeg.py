"""JPEGs that are made to be slow to decode."""

import struct

from benchmarks.hostile_images.registry import (
    MAX_BYTES,
    blank,
    encode,
    fixed,
    make_directory,
    noise,
    sized,
)


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def repeat_last_scan(data: bytes, times: int) -> bytes:
    """Repeat the last scan of a progressive JPEG."""
    start = data.rindex(b"\xff\xda")
    end = data.rindex(b"\xff\xd9")
    return data[:end] + data[start:end] * times + data[end:]


@sized
def _jpeg_with_its_last_scan_1_500_times(width: int, height: int) -> bytes:
    data = encode(blank("RGB", width, height), "JPEG", progressive=True, quality=30)
    scan = len(data) - data.rindex(b"\xff\xda")
    return repeat_last_scan(data, min(1_500, (MAX_BYTES - len(data)) // scan))


@fixed
def _jpeg_of_noise_with_its_last_scan_repeated() -> bytes:
    data = encode(noise(600), "JPEG", progressive=True, quality=60)
    scan = len(data) - data.rindex(b"\xff\xda")
    return repeat_last_scan(data, (MAX_BYTES - len(data)) // scan)


@sized
def _progressive_jpeg_of_many_pixels(width: int, height: int) -> bytes:
    return encode(blank("RGB", width, height), "JPEG", progressive=True, quality=30, subsampling=0)


@sized
def _jpeg_of_many_pixels(width: int, height: int) -> bytes:
    return encode(blank("RGB", width, height), "JPEG", quality=30, subsampling=0)


@sized
def _cmyk_jpeg_of_many_pixels(width: int, height: int) -> bytes:
    return encode(blank("CMYK", width, height), "JPEG", quality=30, optimize=True)


@fixed
def _jpeg_of_250_000_segments() -> bytes:
    data = encode(noise(8), "JPEG")
    return data[:2] + _segment(0xEA, b"") * 249_000 + data[2:]


@fixed
def _jpeg_of_fill_bytes() -> bytes:
    data = encode(noise(8), "JPEG")
    return data[:2] + b"\xff" * 990_000 + data[2:]


@fixed
def _jpeg_of_many_multi_picture_segments() -> bytes:
    data = encode(noise(8), "JPEG")
    return data[:2] + _segment(0xE2, b"MPF\0" + make_directory(5_000, 65_000)) * 15 + data[2:]


@fixed
def _jpeg_with_exif_that_refers_to_itself() -> bytes:
    data = encode(noise(8), "JPEG")
    exif = _segment(0xE1, b"Exif\0\0" + make_directory(2_600, 65_000))
    return data[:2] + exif * 15 + data[2:]
