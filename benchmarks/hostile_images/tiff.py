"""TIFFs that are made to be slow to decode."""

import struct
import zlib

from benchmarks.hostile_images.jpeg import repeat_last_scan
from benchmarks.hostile_images.registry import MAX_BYTES, blank, encode, fixed, sized


def _tiff(
    width: int,
    height: int,
    tags: dict[int, tuple[int, bytes]],
    pixels: bytes,
    depth: tuple[int, ...] = (8,),
) -> bytes:
    """A little-endian TIFF; `tags` hold the TIFF type and the values, and pixels begin at 8."""
    entries = {
        256: (4, struct.pack("<I", width)),
        257: (4, struct.pack("<I", height)),
        258: (3, struct.pack(f"<{len(depth)}H", *depth)),
        262: (3, struct.pack("<H", 1 if len(depth) == 1 else 2)),
        277: (3, struct.pack("<H", len(depth))),
    } | tags
    sizes = {1: 1, 3: 2, 4: 4, 7: 1}
    start = 8 + len(pixels) + 2 + 12 * len(entries) + 4
    body, extra = b"", b""
    for tag, (kind, values) in sorted(entries.items()):
        if len(values) > 4:
            value = struct.pack("<I", start + len(extra))
            extra += values
        else:
            value = values.ljust(4, b"\0")
        body += struct.pack("<HHI", tag, kind, len(values) // sizes[kind]) + value
    directory = struct.pack("<H", len(entries)) + body + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + directory + extra


def _longs(*values: int) -> tuple[int, bytes]:
    return 4, struct.pack(f"<{len(values)}I", *values)


def _short(value: int) -> tuple[int, bytes]:
    return 3, struct.pack("<H", value)


@fixed
def _tiff_of_strips_that_overlap() -> bytes:
    strips, size = 30_000, 700_000
    pixels = zlib.compress(bytes(100)) + bytes(size)
    tags = {
        259: _short(8),
        273: _longs(*[8] * strips),
        278: _longs(1),
        279: _longs(*[size] * strips),
    }
    return _tiff(100, strips, tags, pixels)


@fixed
def _tiff_of_120_000_raw_strips() -> bytes:
    strips = 120_000
    tags = {273: _longs(*[8] * strips), 278: _longs(1), 279: _longs(*[8] * strips)}
    return _tiff(8, strips, tags, bytes(8))


@fixed
def _tiff_of_32_768_raw_strips() -> bytes:
    strips = 32_768
    tags = {273: _longs(*[8] * strips), 278: _longs(1), 279: _longs(*[8] * strips)}
    return _tiff(8, strips, tags, bytes(8 * strips))


@fixed
def _tiff_of_one_pixel_tiles() -> bytes:
    tiles = 120_000
    tags = {
        322: _longs(1),
        323: _longs(1),
        324: _longs(*[8] * tiles),
        325: _longs(*[1] * tiles),
    }
    return _tiff(400, 300, tags, bytes(8))


@sized
def _tiff_of_many_pixels_in_lzw(width: int, height: int) -> bytes:
    return encode(blank("RGB", width, height), "TIFF", compression="tiff_lzw")


@sized
def _tiff_of_many_pixels_with_alpha_in_deflate(width: int, height: int) -> bytes:
    return encode(blank("RGBA", width, height), "TIFF", compression="tiff_adobe_deflate")


@sized
def _tiff_of_many_pixels_in_groups_of_4(width: int, height: int) -> bytes:
    return encode(blank("1", width, height), "TIFF", compression="group4")


@sized
def _tiff_of_many_pixels_in_packbits(width: int, height: int) -> bytes:
    return encode(blank("L", width, height), "TIFF", compression="packbits")


@fixed
def _tiff_of_jpeg_with_its_last_scan_repeated() -> bytes:
    jpeg = repeat_last_scan(
        encode(blank("L", 2_048, 2_048), "JPEG", progressive=True, quality=30), 400
    )
    tags = {259: _short(7), 273: _longs(8), 278: _longs(2_048), 279: _longs(len(jpeg))}
    return _tiff(2_048, 2_048, tags, jpeg)


@sized
def _tiff_of_jpeg_of_many_pixels_with_its_last_scan_90_times(width: int, height: int) -> bytes:
    jpeg = repeat_last_scan(
        encode(blank("L", width, height), "JPEG", progressive=True, quality=30, optimize=True), 90
    )
    tags = {259: _short(7), 273: _longs(8), 278: _longs(height), 279: _longs(len(jpeg))}
    return _tiff(width, height, tags, jpeg)


@fixed
def _tiff_of_one_huge_tile() -> bytes:
    tags = {322: _longs(60_000), 323: _longs(60_000), 324: _longs(8), 325: _longs(100)}
    return _tiff(8, 8, tags | {259: _short(8)}, zlib.compress(bytes(100)) + bytes(100))


@fixed
def _tiff_directory_that_refers_to_itself() -> bytes:
    pixels = bytes(8)
    values = bytes(200_000)
    tags = {
        273: _longs(8),
        279: _longs(8),
        278: _longs(1),
    }
    data = bytearray(_tiff(8, 1, tags | {0x9000: (7, values)}, pixels))
    start = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, start)[0]
    own = data[start + 2 : start + 2 + 12 * count]
    offset = struct.unpack_from("<I", own, len(own) - 4)[0] + 12 * 60_000
    fixed = bytearray(own[:-12])
    for at in range(0, len(fixed), 12):
        kind, number, value = struct.unpack_from("<HII", fixed, at + 2)
        if number * {3: 2, 4: 4}[kind] > 4:
            struct.pack_into("<I", fixed, at + 8, value + 12 * 60_000)
    more = b"".join(
        struct.pack("<HHII", 0x9000 + index % 0x6000, 7, len(values), offset)
        for index in range(60_001)
    )
    rest = data[start + 2 + 12 * count :]
    return bytes(data[:start] + struct.pack("<H", count + 60_000) + fixed + more + rest)


@fixed
def _tiff_of_many_pages() -> bytes:
    page = _tiff(8, 1, {273: _longs(8), 279: _longs(8), 278: _longs(1)}, bytes(8))
    directory = page[16:]
    pages = bytearray(page)
    for _ in range(MAX_BYTES // len(directory) - 2):
        start = len(pages)
        # The link to the next page is the last 4 bytes of a directory without longer values.
        struct.pack_into("<I", pages, start - 4, start)
        pages += directory
    return bytes(pages)
