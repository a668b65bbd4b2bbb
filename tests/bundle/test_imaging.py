import io
import random
import warnings
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngInfo

from bundle import imaging
from bundle.errors import ImageTooLarge, InvalidImage, UnsupportedFormat
from bundle.manifest import InputSpec

GREY = InputSpec(height=4, width=6, channels=1)
RGB = InputSpec(height=4, width=6, channels=3)
ANY = 10**6


def encoded(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def gradient(height: int = 4, width: int = 6) -> Image.Image:
    return Image.fromarray(np.arange(height * width, dtype=np.uint8).reshape(height, width) * 7)


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_a_lossless_image_of_the_models_size_is_taken_pixel_by_pixel(image_format: str) -> None:
    options = {"lossless": True} if image_format == "WEBP" else {}
    image = gradient().convert("RGB") if image_format == "WEBP" else gradient()
    decoded = imaging.decode(encoded(image, image_format, **options), GREY, ANY)
    np.testing.assert_array_equal(decoded.pixels[..., 0], np.asarray(gradient()))
    assert decoded.original_size == (4, 6)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("spec", [InputSpec(height=4, width=6, channels=n) for n in (1, 3)])
def test_a_plain_png_is_read_as_pillow_reads_it(mode: str, spec: InputSpec) -> None:
    data = encoded(gradient(9, 7).convert(mode))
    described = PngInfo()
    described.add_text("Comment", "read by Pillow")
    by_pillow = imaging.decode(encoded(Image.open(io.BytesIO(data)), pnginfo=described), spec, 63)
    plain = imaging.decode(data, spec, 63)
    assert (plain.pixels == by_pillow.pixels).all()
    assert plain[1:] == by_pillow[1:] == ((9, 7), False)


def test_a_damaged_plain_png_is_judged_by_pillow() -> None:
    data, spec = encoded(gradient()), InputSpec(height=4, width=6, channels=1)
    generator = random.Random(0)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[generator.randrange(len(data))] = generator.randrange(256)
        try:
            pixels = np.asarray(Image.open(io.BytesIO(damaged)).convert("L"))
        except Exception:
            with pytest.raises((InvalidImage, UnsupportedFormat, ImageTooLarge)):
                imaging.decode(bytes(damaged), spec, 24)
        else:
            with suppress(InvalidImage):  # for an end that Pillow does not look at
                assert (imaging.decode(bytes(damaged), spec, 24).pixels[..., 0] == pixels).all()


def test_a_jpeg_is_read() -> None:
    decoded = imaging.decode(encoded(gradient(), "JPEG", quality=95), GREY, ANY)
    assert np.abs(decoded.pixels[..., 0].astype(int) - np.asarray(gradient())).max() < 20


def test_another_size_is_resized_with_the_manifests_filter() -> None:
    nearest = GREY.model_copy(update={"resample": "nearest"})
    enlarged = gradient().resize((12, 8), Image.Resampling.NEAREST)
    decoded = imaging.decode(encoded(enlarged), nearest, ANY)
    np.testing.assert_array_equal(decoded.pixels[..., 0], np.asarray(gradient()))
    assert decoded.original_size == (8, 12)


def test_the_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    lying = gradient().transpose(Image.Transpose.ROTATE_90)
    decoded = imaging.decode(encoded(lying, exif=exif), GREY, ANY)
    np.testing.assert_array_equal(decoded.pixels[..., 0], np.asarray(gradient()))
    assert decoded.original_size == (4, 6)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_composed_on_white(mode: str) -> None:
    image = Image.new("RGBA", (6, 4), (0, 0, 0, 0)).convert(mode)
    options: dict[str, Any] = {"transparency": 0} if mode == "P" else {}
    assert (imaging.decode(encoded(image, **options), RGB, ANY).pixels == 255).all()


def test_sixteen_bit_grey_is_scaled_to_eight() -> None:
    wide = np.array([0, 128, 257, 32896, 65535, 257 * 100], dtype=np.uint16).reshape(1, 6)
    decoded = imaging.decode(
        encoded(Image.fromarray(wide)), GREY.model_copy(update={"height": 1}), ANY
    )
    assert decoded.pixels.ravel().tolist() == [0, 0, 1, 128, 255, 100]


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_twelve_bits_in_sixteen_keep_all_their_levels(image_format: str) -> None:
    wide = np.array([0, 8, 9, 2048, 4095, 65535], dtype=np.uint16).reshape(1, 6)
    twelve = GREY.model_copy(update={"height": 1, "white_16_bit": 4095})
    decoded = imaging.decode(encoded(Image.fromarray(wide), image_format), twelve, ANY)
    assert decoded.pixels.ravel().tolist() == [0, 0, 1, 128, 255, 255]


def test_sixteen_bits_are_scaled_as_before_there_was_a_choice_of_white() -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    spec = InputSpec(height=256, width=256, channels=1)
    decoded = imaging.decode(encoded(Image.fromarray(levels)), spec, ANY)
    np.testing.assert_array_equal(decoded.pixels[..., 0], (levels.astype(int) + 128) // 257)


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("L", (6, 4), level) for level in (10, 200)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (imaging.decode(data, GREY, ANY).pixels == 10).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_every_mode_comes_out_as_the_models(mode: str) -> None:
    image = Image.new("RGB", (6, 4), "white").convert(mode)
    image_format = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    for spec in (GREY, RGB):
        pixels = imaging.decode(encoded(image, image_format), spec, ANY).pixels
        assert pixels.shape == spec.shape
        assert pixels.min() >= 254


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(InvalidImage, match="floating-point"):
        imaging.decode(encoded(Image.new("F", (6, 4)), "TIFF"), GREY, ANY)


def test_pixels_beyond_sixteen_bits_are_refused() -> None:
    with pytest.raises(InvalidImage, match="beyond 16 bits"):
        imaging.decode(
            encoded(Image.fromarray(np.full((4, 6), 70_000, np.int32)), "TIFF"), GREY, ANY
        )


@pytest.mark.parametrize("data", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_bytes_that_are_no_image_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidImage):
        imaging.decode(data, GREY, ANY)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_a_truncated_image_is_refused(image_format: str) -> None:
    data = encoded(Image.effect_noise((64, 64), 50).convert("RGB"), image_format)
    with pytest.raises(InvalidImage):
        imaging.decode(data[: len(data) // 2], GREY, ANY)


def test_an_unsupported_format_is_named() -> None:
    with pytest.raises(UnsupportedFormat, match="PNM images are not supported"):
        imaging.decode(encoded(gradient(), "PPM"), GREY, ANY)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    header_only = encoded(Image.new("L", (1000, 1001)))[:60]
    with pytest.raises(ImageTooLarge, match="1000x1001 is 1001000 pixels; at most 1000000"):
        imaging.decode(header_only, GREY, ANY)


def test_a_decompression_bomb_is_refused_quietly() -> None:
    header = bytearray(encoded(Image.new("L", (1, 1))))
    header[16:24] = (20_000).to_bytes(4) * 2
    chunk = bytes(header[12:29])
    header[29:33] = __import__("zlib").crc32(chunk).to_bytes(4)
    with warnings.catch_warnings(), pytest.raises(ImageTooLarge):
        imaging.decode(bytes(header), GREY, ANY)


def test_an_array_at_the_models_size_is_taken_as_it_is() -> None:
    array = np.zeros((2, 4, 6), np.uint8)
    assert imaging.check_array(array, GREY).shape == (2, 4, 6, 1)
    assert imaging.check_array(array[..., None], GREY).shape == (2, 4, 6, 1)


@pytest.mark.parametrize(
    ("array", "spec"),
    [
        (np.zeros((2, 4, 6), np.float32), GREY),
        (np.zeros((4, 6), np.uint8), GREY),
        (np.zeros((2, 6, 4), np.uint8), GREY),
        (np.zeros((2, 4, 6), np.uint8), RGB),
        (np.zeros((2, 4, 6, 4), np.uint8), RGB),
    ],
)
def test_any_other_array_is_refused(array: np.ndarray, spec: InputSpec) -> None:
    with pytest.raises(InvalidImage, match="images must be uint8"):
        imaging.check_array(array, spec)


@pytest.mark.parametrize("spec", [GREY, RGB])
def test_png_is_lossless(spec: InputSpec) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, spec.shape, dtype=np.uint8)
    np.testing.assert_array_equal(
        imaging.decode(imaging.encode_png(pixels), spec, ANY).pixels, pixels
    )


def test_a_png_without_its_end_is_refused() -> None:
    with pytest.raises(InvalidImage, match="truncated"):
        imaging.decode(encoded(gradient())[:-12], GREY, ANY)


def test_exif_data_that_cannot_be_read_turn_nothing() -> None:
    decoded = imaging.decode(encoded(gradient(), exif=b"garbage"), GREY, ANY)
    np.testing.assert_array_equal(decoded.pixels[..., 0], np.asarray(gradient()))


def test_the_transparent_level_of_sixteen_bit_grey_is_white() -> None:
    wide = np.array([0, 257, 514, 771, 1028, 1285], dtype=np.uint16).reshape(1, 6)
    data = encoded(Image.fromarray(wide), transparency=771)
    assert imaging.decode(
        data, GREY.model_copy(update={"height": 1}), ANY
    ).pixels.ravel().tolist() == [
        0,
        1,
        2,
        255,
        4,
        5,
    ]


@pytest.mark.parametrize(
    ("orientation", "turned", "gap", "size", "most"),
    # A quarter, because an eighth is less than twice the model's size; but not less than 1.5 times.
    # 402 pixels are no multiple of 8: the edge of 51 holds less than a pixel, which shows.
    [(1, False, 2, (101, 76), 2), (6, True, 2, (101, 76), 2), (1, False, 1.5, (51, 38), 3)],
)
def test_a_jpeg_far_larger_than_the_model_is_decoded_smaller_and_looks_the_same(
    monkeypatch: pytest.MonkeyPatch,
    orientation: int,
    turned: bool,
    gap: float,
    size: tuple[int, int],
    most: float,
) -> None:
    sizes: list[tuple[int, int]] = []
    load = JpegImageFile.load

    def note(self: JpegImageFile) -> object:
        result = load(self)
        sizes.append(self.size)
        return result

    exif = Image.Exif()
    exif[0x0112] = orientation
    y, x = np.mgrid[0:301, 0:402]
    image = Image.fromarray(((np.sin(x / 60) + np.cos(y / 45) + 2) * 63).astype(np.uint8))
    spec = InputSpec(height=24, width=20, channels=1, reducing_gap=gap)
    upright = image.transpose(Image.Transpose.ROTATE_270) if turned else image
    expected = imaging.fit(np.asarray(upright), spec)
    monkeypatch.setattr(JpegImageFile, "load", note)
    decoded = imaging.decode(encoded(image, "JPEG", quality=95, exif=exif), spec, ANY)
    assert sizes[0] == size
    assert decoded.original_size == ((402, 301) if turned else (301, 402))
    assert np.abs(decoded.pixels.astype(int) - expected).mean() < most


def colourful(share: float, levels: int) -> Image.Image:
    """Grey noise, of which a share is reddish by some levels."""
    noise = np.random.default_rng(0).integers(0, 200, (200, 250, 1)).repeat(3, axis=2)
    noise[: round(200 * share), :, 0] += levels
    return Image.fromarray(noise.astype(np.uint8))


@pytest.mark.parametrize(
    ("image", "image_format", "lost"),
    [
        (colourful(1, 50), "PNG", True),
        (colourful(0.1, 50), "PNG", True),
        (colourful(1, 50), "JPEG", True),
        (colourful(1, 50).convert("CMYK"), "JPEG", True),
        (colourful(1, 50).convert("RGBA"), "PNG", True),
        (colourful(1, 50).convert("P"), "GIF", True),
        (colourful(0, 0), "PNG", False),
        (colourful(0, 0), "JPEG", False),
        (colourful(1, 15), "JPEG", False),
        (colourful(0.005, 50), "PNG", False),
        (colourful(0, 0).convert("L"), "PNG", False),
        (colourful(0, 0).convert("L"), "GIF", False),
        (colourful(0, 0).convert("P"), "PNG", False),
        (colourful(0, 0).convert("LA"), "PNG", False),
        (Image.new("RGBA", (6, 4), (200, 0, 0, 0)), "PNG", False),
        (Image.fromarray(np.full((4, 6), 30_000, np.uint16)), "PNG", False),
    ],
)
def test_an_image_in_colour_loses_it_to_a_grey_model_only(
    image: Image.Image,
    image_format: str,
    lost: bool,
) -> None:
    data = encoded(image, image_format)
    assert imaging.decode(data, GREY, ANY).lost_colour == lost
    assert not imaging.decode(data, RGB, ANY).lost_colour


def test_the_original_is_turned_and_composed_at_its_own_size() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    lying = Image.new("RGBA", (4, 6), (200, 0, 0, 255))
    lying.putpixel((0, 0), (0, 0, 0, 0))
    data = encoded(lying, exif=exif)
    pixels = imaging.decode_original(data, RGB, ANY)
    assert pixels.shape[:2] == imaging.decode(data, RGB, ANY).original_size == (4, 6)
    assert pixels[0, 5].tolist() == [255, 255, 255]
    assert pixels[3, 0].tolist() == [200, 0, 0]


def test_the_original_of_a_large_jpeg_is_not_reduced() -> None:
    large = Image.effect_noise((400, 300), 50)
    data = encoded(large, "JPEG")
    assert imaging.decode_original(data, RGB, ANY).shape == (300, 400, 3)
    with pytest.raises(ImageTooLarge):
        imaging.decode_original(data, RGB, 1000)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_the_original_has_the_models_white_of_sixteen_bits(image_format: str) -> None:
    wide = np.array([0, 8, 9, 2048, 4095, 65535], dtype=np.uint16).reshape(1, 6)
    data = encoded(Image.fromarray(wide), image_format)
    twelve = GREY.model_copy(update={"height": 1, "white_16_bit": 4095})
    decoded, original = (
        imaging.decode(data, twelve, ANY),
        imaging.decode_original(data, twelve, ANY),
    )
    assert not decoded.lost_colour
    np.testing.assert_array_equal(original, np.repeat(decoded.pixels, 3, axis=-1))
    assert imaging.decode_original(data, GREY, ANY)[0, :, 0].tolist() == [0, 0, 0, 8, 16, 255]


def test_only_a_small_image_is_decoded_as_one() -> None:
    data = encoded(gradient())
    pixels = Image.open(io.BytesIO(data)).size[0] * Image.open(io.BytesIO(data)).size[1]
    assert imaging.decode_small(data, GREY, ANY, pixels - 1) is None
    small = imaging.decode_small(data, GREY, ANY, pixels)
    assert small is not None
    np.testing.assert_array_equal(small.pixels, imaging.decode(data, GREY, ANY).pixels)
