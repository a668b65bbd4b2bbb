"""GIFs, WebPs and BMPs that are made to be slow to decode."""

import struct

from PIL import Image

from benchmarks.hostile_images.registry import SIDE_PIXELS, blank, encode, fixed, noise, sized


def _gif(width: int, height: int, before: bytes, frames: int = 1) -> bytes:
    image = encode(Image.new("L", (width, height)), "GIF")
    start = image.index(b",\0\0\0\0")
    frame = image[start:-1]
    return image[:start] + before + frame * frames + b";"


@fixed
def _gif_with_a_comment_of_blocks_of_one_byte() -> bytes:
    return _gif(8, 8, b"!\xfe" + b"\x01 " * 490_000 + b"\0")


@fixed
def _gif_of_many_comments() -> bytes:
    return _gif(8, 8, b"!\xfe\x01 \0" * 190_000)


@sized
def _gif_of_many_pixels(width: int, height: int) -> bytes:
    return _gif(width, height, b"")


@fixed
def _gif_of_many_frames() -> bytes:
    return _gif(8, 8, b"", frames=30_000)


@fixed
def _gif_of_many_controls() -> bytes:
    return _gif(8, 8, b"!\xf9\x04\x01\0\0\0\0" * 120_000)


@sized
def _gif_of_a_frame_in_a_canvas_of_many_pixels(width: int, height: int) -> bytes:
    data = bytearray(_gif(8, 8, b""))
    struct.pack_into("<HH", data, 6, width, height)
    return bytes(data)


@sized
def _webp_of_many_pixels(width: int, height: int) -> bytes:
    return encode(blank("RGB", width, height), "WEBP", quality=20, method=0)


@sized
def _lossless_webp_of_many_pixels(width: int, height: int) -> bytes:
    return encode(blank("RGBA", width, height), "WEBP", lossless=True, method=0)


@fixed
def _lossless_webp_of_noise() -> bytes:
    return encode(noise(560), "WEBP", lossless=True, method=0)


@fixed
def _animated_webp_of_many_frames() -> bytes:
    frames = [Image.new("RGB", (8, 8), (index % 256, index // 256, 0)) for index in range(6_000)]
    return encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], method=0)


def _rle_bmp(width: int, height: int, pixels: bytes) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(pixels), 0, 0, 256, 0)
    start = 14 + len(head) + 1024
    return (
        b"BM"
        + struct.pack("<IHHI", start + len(pixels), 0, 0, start)
        + head
        + (bytes(1024) + pixels)
    )


@fixed
def _bmp_of_runs_of_one_pixel() -> bytes:
    return _rle_bmp(5_000, 99, b"\x01\x00" * 495_000)


@fixed
def _bmp_of_the_most_runs() -> bytes:
    return _rle_bmp(5_000, 26, b"\x01\x00" * 130_000)


@fixed
def _bmp_of_empty_runs() -> bytes:
    return _rle_bmp(8, 8, b"\x01\x00" * 495_000)


@sized
def _bmp_of_many_pixels_in_runs(width: int, height: int) -> bytes:
    row = b"\xff\x00" * (width // 255) + bytes([width % 255, 0]) + b"\0\0"
    return _rle_bmp(width, height, row * height)


@fixed
def _bmp_of_jumps() -> bytes:
    return _rle_bmp(SIDE_PIXELS, SIDE_PIXELS, b"\0\x02\xff\x01" * 220_000 + b"\0\x01")
