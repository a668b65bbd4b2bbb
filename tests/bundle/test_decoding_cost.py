"""Images that are slow to decode for their bytes are refused before their pixels are decoded."""

import io
import math

import pytest
from PIL import Image

from benchmarks.hostile_images import FIXED, SIZED
from bundle import decoding_cost, imaging
from bundle.errors import ImageTooLarge, InvalidImage, ItemError, UnsupportedFormat
from bundle.manifest import InputSpec

SPEC = InputSpec(height=8, width=8, channels=3)
MAX_PIXELS = 32_000_000
REFUSALS = {
    "jpeg of 250 000 segments": "over 2000 segments",
    "jpeg of fill bytes": "over 2000 segments",
    "png of one column": "a side may have 65535",
    "png of 65 535 rows": "take too long",
    "png of compressed texts": "Too much memory used in text chunks",
    "png of compressed profiles": "several colour profiles",
    "png of 80 000 chunks": "over 20000 chunks",
    "png of 80 000 unknown chunks": "over 20000 chunks",
    "png of 80 000 empty pixel chunks": "over 20000 chunks",
    "animated png of many frames": "over 20000 chunks",
    "tiff of strips that overlap": "overlap",
    "tiff of 120 000 raw strips": "120000 strips or tiles",
    "tiff of one pixel tiles": "120000 strips or tiles",
    "tiff of jpeg with its last scan repeated": "take too long",
    "tiff of one huge tile": "cannot be decoded",
    "tiff directory that refers to itself": "60009 tags",
    "bmp of runs of one pixel": "may have 262144 bytes",
    "bmp of jumps": "may have 262144 bytes",
    "bmp of empty runs": "may have 262144 bytes",
    "bmp of the most runs": "not enough image data",
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, for damaged metadata
@pytest.mark.parametrize("name", FIXED)
def test_a_hostile_file_is_refused_unless_it_is_cheap(name: str) -> None:
    data = FIXED[name]()
    if name not in REFUSALS:
        assert imaging.decode(data, SPEC, MAX_PIXELS).pixels.shape == (8, 8, 3)
        return
    with pytest.raises(ItemError, match=REFUSALS[name]):
        imaging.decode(data, SPEC, MAX_PIXELS)


@pytest.mark.parametrize("name", SIZED)
def test_many_pixels_in_few_bytes_are_refused_with_the_number_that_is_accepted(name: str) -> None:
    pixels = 600 * 600
    data = SIZED[name](600, 600)
    with Image.open(io.BytesIO(data)) as image:
        if name == "jpeg of many pixels":
            decoding_cost.check_image(image, data, pixels, budget=pixels)
            return
        with pytest.raises(ImageTooLarge, match="take too long to decode") as refusal:
            decoding_cost.check_image(image, data, pixels, budget=pixels)
    side = math.isqrt(int(str(refusal.value).split()[-2]))
    assert side < 600
    if name != "jpeg with its last scan 1 500 times":  # fewer fit into the bytes of a large one
        data = SIZED[name](side - 1, side - 1)
        with Image.open(io.BytesIO(data)) as image:
            decoding_cost.check_image(image, data, pixels, budget=pixels)


def test_the_budget_grows_with_the_bytes_of_a_file() -> None:
    data = SIZED["png of many pixels"](600, 600)
    with Image.open(io.BytesIO(data)) as image:
        decoding_cost.check_image(image, data + bytes(2 * 10**6), 600 * 600, budget=600 * 600)


@pytest.mark.parametrize("marker", [0xC3, 0xC9, 0xCA])
def test_lossless_and_arithmetic_jpegs_are_unsupported(marker: int) -> None:
    data = bytearray(SIZED["jpeg of many pixels"](8, 8))
    data[data.index(b"\xff\xc0") + 1] = marker
    with pytest.raises(UnsupportedFormat, match="lossless or has arithmetic coding"):
        imaging.decode(bytes(data), SPEC, MAX_PIXELS)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_tiffs_in_many_strips_are_read(compression: str) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((800, 600), 50).save(
        buffer, "TIFF", compression=compression, strip_size=8_000
    )
    assert imaging.decode(buffer.getvalue(), SPEC, MAX_PIXELS).original_size == (600, 800)


def test_a_truncated_tiff_is_left_to_its_decoder() -> None:
    with pytest.raises(InvalidImage):
        imaging.decode(b"II*\0\x08\0\0\0\xff", SPEC, MAX_PIXELS)
