"""Files of at most 1 MB that are made to be slow to decode, and the seconds that each takes.

    python -m benchmarks.hostile_images

Each file is decoded to the size of a model, and to its own size as an overlay needs it. A file that
is refused counts until it is refused.
"""

import io
import math
import re
import struct
import time
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from bundle import imaging
from bundle.errors import ImageTooLarge, InvalidImage, UnsupportedFormat
from bundle.manifest import InputSpec

MAX_BYTES = 10**6
MAX_PIXELS = 32_000_000  # the default of AE_MAX_IMAGE_PIXELS
GOAL_SECONDS = 0.5
SIDE_PIXELS = 5_656  # of a square of 32 million pixels
SPEC = InputSpec(height=256, width=256, channels=3)

FIXED: dict[str, Callable[[], bytes]] = {}
SIZED: dict[str, Callable[[int, int], bytes]] = {}  # by width and height


def _hostile(make: Callable[[], bytes]) -> Callable[[], bytes]:
    FIXED[make.__name__.replace("_", " ").strip()] = make
    return make


def _sized(make: Callable[[int, int], bytes]) -> Callable[[int, int], bytes]:
    SIZED[make.__name__.replace("_", " ").strip()] = make
    return make


def make_all() -> Iterator[tuple[str, bytes]]:
    """Make each file, at most `MAX_BYTES` long; those of many pixels as large as are accepted."""
    for name, make in FIXED.items():
        yield name, make()
    for name, make_sized in SIZED.items():
        side = SIDE_PIXELS
        yield name, (data := make_sized(side, side))
        while refusal := find_refusal(data):
            named = re.search(r"at most (\d+) pixels", refusal)
            side = min(math.isqrt(int(named[1])) if named else side, side) * 99 // 100
            data = make_sized(side, side)
        yield f"{name}, {side}x{side}", data


def find_refusal(data: bytes) -> str:
    """Return the reason if a file is refused before its pixels are decoded."""
    try:
        with imaging.open_image(data, MAX_PIXELS):
            return ""
    except (ImageTooLarge, InvalidImage, UnsupportedFormat) as error:
        return str(error)


def measure(data: bytes) -> tuple[float, str]:
    """Return the most seconds that decoding takes, and the reason if the file is refused."""
    slowest, refused = 0.0, ""
    for decode in (imaging.decode, imaging.decode_original):
        began = time.perf_counter()
        try:
            decode(data, SPEC, MAX_PIXELS)
        except (ImageTooLarge, InvalidImage, UnsupportedFormat) as error:
            refused = str(error)
        slowest = max(slowest, time.perf_counter() - began)
    return slowest, refused


def main() -> None:
    """Print a line for each file."""
    count = missed = 0
    for name, data in make_all():
        assert len(data) <= MAX_BYTES, name
        seconds, refused = measure(data)
        count += 1
        missed += seconds >= GOAL_SECONDS
        print(f"{seconds:6.2f} s  {len(data):9,} bytes  {name}: {refused[:90] or 'decoded'}")
    print(f"{count} files, {missed} take {GOAL_SECONDS} s or more")


# JPEG


def _encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def _blank(mode: str, width: int, height: int) -> Image.Image:
    return Image.new(mode, (width, height))


def _noise(side: int, channels: int = 3) -> Image.Image:
    shape = (side, side, channels) if channels > 1 else (side, side)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _repeat_last_scan(data: bytes, times: int) -> bytes:
    start = data.rindex(b"\xff\xda")
    end = data.rindex(b"\xff\xd9")
    return data[:end] + data[start:end] * times + data[end:]


@_sized
def _jpeg_with_its_last_scan_1_500_times(width: int, height: int) -> bytes:
    data = _encode(_blank("RGB", width, height), "JPEG", progressive=True, quality=30)
    scan = len(data) - data.rindex(b"\xff\xda")
    return _repeat_last_scan(data, min(1_500, (MAX_BYTES - len(data)) // scan))


@_hostile
def _jpeg_of_noise_with_its_last_scan_repeated() -> bytes:
    data = _encode(_noise(600), "JPEG", progressive=True, quality=60)
    scan = len(data) - data.rindex(b"\xff\xda")
    return _repeat_last_scan(data, (MAX_BYTES - len(data)) // scan)


@_sized
def _progressive_jpeg_of_many_pixels(width: int, height: int) -> bytes:
    return _encode(
        _blank("RGB", width, height), "JPEG", progressive=True, quality=30, subsampling=0
    )


@_sized
def _jpeg_of_many_pixels(width: int, height: int) -> bytes:
    return _encode(_blank("RGB", width, height), "JPEG", quality=30, subsampling=0)


@_sized
def _cmyk_jpeg_of_many_pixels(width: int, height: int) -> bytes:
    return _encode(_blank("CMYK", width, height), "JPEG", quality=30, optimize=True)


@_hostile
def _jpeg_of_250_000_segments() -> bytes:
    data = _encode(_noise(8), "JPEG")
    return data[:2] + _segment(0xEA, b"") * 249_000 + data[2:]


@_hostile
def _jpeg_of_fill_bytes() -> bytes:
    data = _encode(_noise(8), "JPEG")
    return data[:2] + b"\xff" * 990_000 + data[2:]


@_hostile
def _jpeg_of_many_multi_picture_segments() -> bytes:
    data = _encode(_noise(8), "JPEG")
    return data[:2] + _segment(0xE2, b"MPF\0" + _directory(5_000, 65_000)) * 15 + data[2:]


def _directory(entries: int, total: int) -> bytes:
    """A TIFF directory whose entries all refer to the same bytes, all that fit into `total`."""
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", entries)
    size = total - len(head) - 12 * entries - 4
    start = len(head) + 12 * entries + 4
    body = b"".join(
        struct.pack("<HHII", 0x8000 + index % 0x7000, 1, size, start) for index in range(entries)
    )
    return head + body + struct.pack("<I", 0) + bytes(size)


@_hostile
def _jpeg_with_exif_that_refers_to_itself() -> bytes:
    data = _encode(_noise(8), "JPEG")
    exif = _segment(0xE1, b"Exif\0\0" + _directory(2_600, 65_000))
    return data[:2] + exif * 15 + data[2:]


# PNG


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


@_sized
def _png_of_many_pixels_with_16_bits_and_alpha(width: int, height: int) -> bytes:
    return _png(width, height, 16, 6)


@_sized
def _png_of_many_pixels_with_8_bits_and_alpha(width: int, height: int) -> bytes:
    return _png(width, height, 8, 6)


@_sized
def _png_of_many_pixels(width: int, height: int) -> bytes:
    return _png(width, height, 8, 2)


@_sized
def _png_of_many_grey_pixels(width: int, height: int) -> bytes:
    return _png(width, height, 8, 0)


@_sized
def _png_of_many_pixels_in_a_palette_with_alpha(width: int, height: int) -> bytes:
    return _png(width, height, 8, 3, _chunk(b"tRNS", bytes(256)))


@_sized
def _png_of_many_grey_pixels_with_16_bits(width: int, height: int) -> bytes:
    return _png(width, height, 16, 0)


@_sized
def _interlaced_png_of_many_pixels(width: int, height: int) -> bytes:
    return _png(width, height, 8, 6, interlaced=True)


@_hostile
def _png_of_one_column() -> bytes:
    return _png(1, 1_000_000, 8, 0)


@_hostile
def _png_of_65_535_rows() -> bytes:
    return _png(300, 65_535, 8, 0)


@_hostile
def _png_of_compressed_texts() -> bytes:
    text = _chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(2**20 - 64), 9))
    return _png(8, 8, 8, 0, text * 900)


@_hostile
def _png_of_compressed_profiles() -> bytes:
    profile = _chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(2**20 - 64), 9))
    return _png(8, 8, 8, 0, profile * 900)


@_hostile
def _png_of_80_000_chunks() -> bytes:
    return _png(8, 8, 8, 0, _chunk(b"tEXt", b"k\0") * 71_000)


@_hostile
def _png_of_80_000_unknown_chunks() -> bytes:
    return _png(8, 8, 8, 0, _chunk(b"abCd", b"") * 83_000)


@_hostile
def _png_with_exif_that_refers_to_itself() -> bytes:
    return _png(8, 8, 8, 0, _chunk(b"eXIf", _directory(40_000, 990_000)))


@_hostile
def _png_of_80_000_empty_pixel_chunks() -> bytes:
    return _png(64, 64, 8, 0, _chunk(b"IDAT", b"") * 83_000)


@_hostile
def _animated_png_of_many_frames() -> bytes:
    frame = _chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 8, 8, 0, 0, 1, 1, 0, 0))
    frames = _chunk(b"acTL", struct.pack(">II", 25_000, 0)) + frame * 24_000
    return _png(8, 8, 8, 0, frames)


# TIFF


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


@_hostile
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


@_hostile
def _tiff_of_120_000_raw_strips() -> bytes:
    strips = 120_000
    tags = {273: _longs(*[8] * strips), 278: _longs(1), 279: _longs(*[8] * strips)}
    return _tiff(8, strips, tags, bytes(8))


@_hostile
def _tiff_of_32_768_raw_strips() -> bytes:
    strips = 32_768
    tags = {273: _longs(*[8] * strips), 278: _longs(1), 279: _longs(*[8] * strips)}
    return _tiff(8, strips, tags, bytes(8 * strips))


@_hostile
def _tiff_of_one_pixel_tiles() -> bytes:
    tiles = 120_000
    tags = {
        322: _longs(1),
        323: _longs(1),
        324: _longs(*[8] * tiles),
        325: _longs(*[1] * tiles),
    }
    return _tiff(400, 300, tags, bytes(8))


@_sized
def _tiff_of_many_pixels_in_lzw(width: int, height: int) -> bytes:
    return _encode(_blank("RGB", width, height), "TIFF", compression="tiff_lzw")


@_sized
def _tiff_of_many_pixels_with_alpha_in_deflate(width: int, height: int) -> bytes:
    return _encode(_blank("RGBA", width, height), "TIFF", compression="tiff_adobe_deflate")


@_sized
def _tiff_of_many_pixels_in_groups_of_4(width: int, height: int) -> bytes:
    return _encode(_blank("1", width, height), "TIFF", compression="group4")


@_sized
def _tiff_of_many_pixels_in_packbits(width: int, height: int) -> bytes:
    return _encode(_blank("L", width, height), "TIFF", compression="packbits")


@_hostile
def _tiff_of_jpeg_with_its_last_scan_repeated() -> bytes:
    jpeg = _repeat_last_scan(
        _encode(_blank("L", 2_048, 2_048), "JPEG", progressive=True, quality=30), 400
    )
    tags = {259: _short(7), 273: _longs(8), 278: _longs(2_048), 279: _longs(len(jpeg))}
    return _tiff(2_048, 2_048, tags, jpeg)


@_sized
def _tiff_of_jpeg_of_many_pixels_with_its_last_scan_90_times(width: int, height: int) -> bytes:
    jpeg = _repeat_last_scan(
        _encode(_blank("L", width, height), "JPEG", progressive=True, quality=30, optimize=True), 90
    )
    tags = {259: _short(7), 273: _longs(8), 278: _longs(height), 279: _longs(len(jpeg))}
    return _tiff(width, height, tags, jpeg)


@_hostile
def _tiff_of_one_huge_tile() -> bytes:
    tags = {322: _longs(60_000), 323: _longs(60_000), 324: _longs(8), 325: _longs(100)}
    return _tiff(8, 8, tags | {259: _short(8)}, zlib.compress(bytes(100)) + bytes(100))


@_hostile
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


@_hostile
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


# GIF


def _gif(width: int, height: int, before: bytes, frames: int = 1) -> bytes:
    image = _encode(Image.new("L", (width, height)), "GIF")
    start = image.index(b",\0\0\0\0")
    frame = image[start:-1]
    return image[:start] + before + frame * frames + b";"


@_hostile
def _gif_with_a_comment_of_blocks_of_one_byte() -> bytes:
    return _gif(8, 8, b"!\xfe" + b"\x01 " * 490_000 + b"\0")


@_hostile
def _gif_of_many_comments() -> bytes:
    return _gif(8, 8, b"!\xfe\x01 \0" * 190_000)


@_sized
def _gif_of_many_pixels(width: int, height: int) -> bytes:
    return _gif(width, height, b"")


@_hostile
def _gif_of_many_frames() -> bytes:
    return _gif(8, 8, b"", frames=30_000)


@_hostile
def _gif_of_many_controls() -> bytes:
    return _gif(8, 8, b"!\xf9\x04\x01\0\0\0\0" * 120_000)


@_sized
def _gif_of_a_frame_in_a_canvas_of_many_pixels(width: int, height: int) -> bytes:
    data = bytearray(_gif(8, 8, b""))
    struct.pack_into("<HH", data, 6, width, height)
    return bytes(data)


# WebP


@_sized
def _webp_of_many_pixels(width: int, height: int) -> bytes:
    return _encode(_blank("RGB", width, height), "WEBP", quality=20, method=0)


@_sized
def _lossless_webp_of_many_pixels(width: int, height: int) -> bytes:
    return _encode(_blank("RGBA", width, height), "WEBP", lossless=True, method=0)


@_hostile
def _lossless_webp_of_noise() -> bytes:
    return _encode(_noise(560), "WEBP", lossless=True, method=0)


@_hostile
def _animated_webp_of_many_frames() -> bytes:
    frames = [Image.new("RGB", (8, 8), (index % 256, index // 256, 0)) for index in range(6_000)]
    return _encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], method=0)


# BMP


def _rle_bmp(width: int, height: int, pixels: bytes) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(pixels), 0, 0, 256, 0)
    start = 14 + len(head) + 1024
    return (
        b"BM"
        + struct.pack("<IHHI", start + len(pixels), 0, 0, start)
        + head
        + (bytes(1024) + pixels)
    )


@_hostile
def _bmp_of_runs_of_one_pixel() -> bytes:
    return _rle_bmp(5_000, 99, b"\x01\x00" * 495_000)


@_hostile
def _bmp_of_the_most_runs() -> bytes:
    return _rle_bmp(5_000, 26, b"\x01\x00" * 130_000)


@_hostile
def _bmp_of_empty_runs() -> bytes:
    return _rle_bmp(8, 8, b"\x01\x00" * 495_000)


@_sized
def _bmp_of_many_pixels_in_runs(width: int, height: int) -> bytes:
    row = b"\xff\x00" * (width // 255) + bytes([width % 255, 0]) + b"\0\0"
    return _rle_bmp(width, height, row * height)


@_hostile
def _bmp_of_jumps() -> bytes:
    return _rle_bmp(SIDE_PIXELS, SIDE_PIXELS, b"\0\x02\xff\x01" * 220_000 + b"\0\x01")


if __name__ == "__main__":
    main()
