"""Limits on the work of decoding an image, checked before any pixel is decoded.

A small file can be slow to decode: a JPEG can repeat a scan, a PNG of one colour is a thousand
times smaller than its pixels, and a TIFF can cut its pixels into strips of one byte. The work that
is allowed grows with the bytes of the file, so that large photographs are decoded.
`benchmarks/hostile_images` measures the costs.
"""

import struct
from collections.abc import Iterator

from PIL.ImageFile import ImageFile

from bundle.errors import ImageTooLarge, InvalidImage, UnsupportedFormat

MAX_SIDE_PIXELS = 65_535  # as in JPEG and GIF, because each row of a PNG or TIFF costs time
MAX_SEGMENTS = 2_000  # of a JPEG before its pixels; Pillow reads them in Python
MAX_CHUNKS = 20_000  # of a PNG
MAX_STRIPS = 32_768  # of a TIFF, or tiles
MAX_TAGS = 2_000  # of a TIFF
MAX_RUN_BYTES = 2**18  # of a BMP with run-length encoding, which Pillow decodes in Python
BUDGET = 32_000_000  # cost of a file; about half a second of a core
BYTES_PER_BUDGET = 10**6  # a larger file may cost one budget for each of so many bytes

# Of these sizes, no file has too many chunks, and no image costs too much.
SMALL_BYTES, SMALL_PIXELS = 2**14, 2**16

# Costs of a pixel, relative to a JPEG of one scan.
_COSTS = {"JPEG": 0.85, "MPO": 0.85, "PNG": 1.7, "TIFF": 1.7, "GIF": 1.7, "WEBP": 2.4, "BMP": 1.7}
_COST_OF_ALPHA = 1.8  # times, for alpha or 16 bits a channel
_COST_OF_SCAN = 0.1  # of a JPEG
_WIDE_MODES = {"RGBA", "LA", "PA", "CMYK", "I;16", "I;16B", "I;16L", "I;16N", "I", "F"}
_SCANNED_FORMATS = ("JPEG", "MPO", "TIFF")  # of which a scan can be repeated
_JPEG_IN_TIFF = "jpeg"
_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES = 273, 279, 324, 325
_TIFF_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 8: 2, 9: 4, 11: 4, 13: 4, 5: 8, 10: 8, 12: 8}


def check_file(data: bytes) -> None:
    """Check what Pillow reads of a file before its pixels.

    Raises InvalidImage if it would take too long, and UnsupportedFormat for an encoding that is
    too slow.
    """
    if data[:2] == b"\xff\xd8":
        _check_jpeg(data)
    elif data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > SMALL_BYTES:
        _check_png(data)
    elif data[:4] in (b"II*\0", b"MM\0*"):
        _check_tiff(data)
    elif (
        data[:2] == b"BM"
        and data[30:34] in (b"\1\0\0\0", b"\2\0\0\0")
        and len(data) > MAX_RUN_BYTES
    ):
        raise UnsupportedFormat(
            f"a BMP with run-length encoding may have {MAX_RUN_BYTES} bytes, not {len(data)}; "
            "save it without"
        )
    elif data[:4] in (b"II+\0", b"MM\0+"):
        raise UnsupportedFormat("BigTIFF images are not supported; save the image as TIFF or PNG")


def check_image(image: ImageFile, data: bytes, max_pixels: int, budget: float = BUDGET) -> None:
    """Raise ImageTooLarge if an opened image has too many pixels, or costs too much to decode.

    Where more pixels than `budget` are allowed, an image may cost more too.
    """
    width, height = image.size
    pixels = width * height
    if pixels <= min(SMALL_PIXELS, max_pixels) and image.format not in _SCANNED_FORMATS:
        return
    size = f"{width}x{height} is {pixels} pixels"
    if pixels > max_pixels:
        raise ImageTooLarge(f"{size}; at most {max_pixels} are allowed")
    if max(image.size) > MAX_SIDE_PIXELS:
        raise ImageTooLarge(
            f"the image is {width}x{height} pixels; a side may have {MAX_SIDE_PIXELS}"
        )
    budget = max(budget, max_pixels) * max(1.0, len(data) / BYTES_PER_BUDGET)
    cost = _estimate_cost(image, data)
    if pixels * cost > budget:
        raise ImageTooLarge(
            f"{size} in {len(data)} bytes, which take too long to decode; send at most "
            f"{int(budget / cost)} pixels"
        )


def _estimate_cost(image: ImageFile, data: bytes) -> float:
    """Estimate the cost of a pixel."""
    cost = _COSTS.get(str(image.format), 2.0)
    if image.mode in _WIDE_MODES or "transparency" in image.info:
        cost *= _COST_OF_ALPHA
    if image.format in ("JPEG", "MPO"):
        cost += _COST_OF_SCAN * data.count(b"\xff\xda")
    elif image.info.get("compression") == _JPEG_IN_TIFF:
        cost += _COST_OF_SCAN * data.count(b"\xff\xda") / len(image.tile)
    return cost


def _check_jpeg(data: bytes) -> None:
    """Raise for too many segments before the pixels, or an encoding other than Huffman's."""
    at = 2
    for _ in range(MAX_SEGMENTS):
        marker = data[at : at + 2]
        if len(marker) < 2 or marker == b"\xff\xda":
            return
        if marker[0] == 0xFF and 0xC3 <= marker[1] <= 0xCF and marker[1] not in (0xC4, 0xC8, 0xCC):
            raise UnsupportedFormat(
                "the JPEG is lossless or has arithmetic coding; save it as baseline or progressive"
            )
        if marker[0] != 0xFF or marker[1] in (0x00, 0xFF):
            at += 1  # padding, which Pillow reads byte by byte
        elif 0xD0 <= marker[1] <= 0xD9 or marker[1] == 0x01:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise InvalidImage(
        f"the JPEG has over {MAX_SEGMENTS} segments before its pixels; save it without metadata"
    )


def _check_png(data: bytes) -> None:
    """Raise for too many chunks, or several compressed profiles."""
    if data.count(b"iCCP") > 1:
        raise InvalidImage("the PNG has several colour profiles; save it with one or none")
    at = 8
    for _ in range(MAX_CHUNKS):
        if at >= len(data):
            return
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    raise InvalidImage(f"the PNG has over {MAX_CHUNKS} chunks; save it again")


def _check_tiff(data: bytes) -> None:
    """Raise for too many tags or strips in the first directory, or strips that overlap."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (tags,) = struct.unpack_from(f"{order}H", data, start)
        if tags > MAX_TAGS:
            raise InvalidImage(f"the TIFF has {tags} tags; at most {MAX_TAGS} are read")
        for tag, kind, count, at in _read_tags(data, order, start, tags):
            if tag in (_STRIPS, _TILES) and count > MAX_STRIPS:
                raise InvalidImage(
                    f"the TIFF has {count} strips or tiles; at most {MAX_STRIPS} are read"
                )
            if tag in (_STRIP_BYTES, _TILE_BYTES):
                number = {1: "B", 3: "H", 4: "I"}.get(kind, "I")
                sizes = struct.unpack_from(f"{order}{count}{number}", data, at)
                if sum(sizes) > len(data):
                    raise InvalidImage("the strips or tiles of the TIFF overlap; save it again")
    except struct.error:
        return  # truncated, which Pillow reports


def _read_tags(
    data: bytes, order: str, start: int, tags: int
) -> Iterator[tuple[int, int, int, int]]:
    """Read number, type, count and offset of the values of each tag."""
    for index in range(tags):
        entry = start + 2 + 12 * index
        tag, kind, count = struct.unpack_from(f"{order}HHI", data, entry)
        inline = count * _TIFF_TYPES.get(kind, 8) <= 4
        (offset,) = struct.unpack_from(f"{order}I", data, entry + 8)
        yield tag, kind, count, entry + 8 if inline else offset
