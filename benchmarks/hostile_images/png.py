"""PNGs that are made to be slow to decode."""

import struct
import zlib

from benchmarks.hostile_images.registry import fixed, make_directory, sized


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def _png(
    width: int, height: int, depth: int, colour: int, before: bytes = b"", interlaced: bool = False
) -> bytes:
    """A PNG of zeros, with chunks before its pixels."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = 1 + (width * depth * channels + 7) // 8
    packer = zlib.compressobj(9)
    rows = height * 2 if interlaced else height  # seven passes hold fewer bytes than two images
    pixels = b"".join(packer.compress(bytes(row)) for _ in range(rows)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    palette = _chunk(b"PLTE", bytes(768)) if colour == 3 else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", head)
        + palette
        + before
        + _chunk(b"IDAT", pixels)
        + _chunk(b"IEND", b"")
    )


@sized
def _png_of_many_pixels_with_16_bits_and_alpha(width: int, height: int) -> bytes:
    return _png(width, height, 16, 6)


@sized
def _png_of_many_pixels_with_8_bits_and_alpha(width: int, height: int) -> bytes:
    return _png(width, height, 8, 6)


@sized
def _png_of_many_pixels(width: int, height: int) -> bytes:
    return _png(width, height, 8, 2)


@sized
def _png_of_many_grey_pixels(width: int, height: int) -> bytes:
    return _png(width, height, 8, 0)


@sized
def _png_of_many_pixels_in_a_palette_with_alpha(width: int, height: int) -> bytes:
    return _png(width, height, 8, 3, _chunk(b"tRNS", bytes(256)))


@sized
def _png_of_many_grey_pixels_with_16_bits(width: int, height: int) -> bytes:
    return _png(width, height, 16, 0)


@sized
def _interlaced_png_of_many_pixels(width: int, height: int) -> bytes:
    return _png(width, height, 8, 6, interlaced=True)


@fixed
def _png_of_one_column() -> bytes:
    return _png(1, 1_000_000, 8, 0)


@fixed
def _png_of_65_535_rows() -> bytes:
    return _png(300, 65_535, 8, 0)


@fixed
def _png_of_compressed_texts() -> bytes:
    text = _chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(2**20 - 64), 9))
    return _png(8, 8, 8, 0, text * 900)


@fixed
def _png_of_compressed_profiles() -> bytes:
    profile = _chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(2**20 - 64), 9))
    return _png(8, 8, 8, 0, profile * 900)


@fixed
def _png_of_80_000_chunks() -> bytes:
    return _png(8, 8, 8, 0, _chunk(b"tEXt", b"k\0") * 71_000)


@fixed
def _png_of_80_000_unknown_chunks() -> bytes:
    return _png(8, 8, 8, 0, _chunk(b"abCd", b"") * 83_000)


@fixed
def _png_with_exif_that_refers_to_itself() -> bytes:
    return _png(8, 8, 8, 0, _chunk(b"eXIf", make_directory(40_000, 990_000)))


@fixed
def _png_of_80_000_empty_pixel_chunks() -> bytes:
    return _png(64, 64, 8, 0, _chunk(b"IDAT", b"") * 83_000)


@fixed
def _animated_png_of_many_frames() -> bytes:
    frame = _chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 8, 8, 0, 0, 1, 1, 0, 0))
    frames = _chunk(b"acTL", struct.pack(">II", 25_000, 0)) + frame * 24_000
    return _png(8, 8, 8, 0, frames)
