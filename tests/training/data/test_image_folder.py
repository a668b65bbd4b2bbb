"""Folders of images of every kind that people have."""

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.manifest import InputSpec
from training.data import image_file, image_folder
from training.errors import DataError

GREY = InputSpec(height=8, width=12, channels=1)
RGB = InputSpec(height=8, width=12, channels=3)


def read(
    directory: Path, spec: InputSpec = RGB, policy: image_file.InvalidFilePolicy = "stop"
) -> tuple[image_folder.Folder, list[str]]:
    logged: list[str] = []
    return image_folder.read(directory, spec, policy, logged.append), logged


def test_every_format_and_size_is_brought_to_the_models_size(photos: Path) -> None:
    found, logged = read(photos)
    assert found.images.shape == (6, 8, 12, 3)
    assert found.classes == ("a", "b")
    assert found.labels is not None
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert logged == [
        f"{photos}: skipped 1 file(s) without an image suffix",
        "reading photos: 6 files",
    ]


def test_without_subfolders_there_are_no_classes(photos: Path) -> None:
    found, _ = read(photos / "a")
    assert found.labels is None
    assert found.classes == ()


def test_the_digest_is_of_names_and_bytes(photos: Path) -> None:
    before = read(photos)[0].sha256
    assert read(photos)[0].sha256 == before
    (photos / "a" / "0.png").rename(photos / "a" / "9.png")
    assert read(photos)[0].sha256 != before


def add_invalid_files(photos: Path) -> None:
    (photos / "a" / "broken.jpg").write_bytes((photos / "a" / "1.jpg").read_bytes()[:100])
    (photos / "a" / "empty.png").touch()
    (photos / "b" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    Image.fromarray(np.full((9, 9), 7, dtype=np.uint8)).save(photos / "b" / "grey.png")
    Image.new("RGBA", (9, 9), (1, 2, 3, 4)).save(photos / "b" / "clear.png")


def test_every_invalid_file_is_named_with_its_reason_before_the_end(photos: Path) -> None:
    add_invalid_files(photos)
    logged: list[str] = []
    complaint = "5 of 11 files are invalid; mend them, or set data.invalid_files to skip or convert"
    with pytest.raises(DataError, match=re.escape(complaint)):
        image_folder.read(photos, RGB, "stop", logged.append)
    reasons = dict(line.rsplit("/", 1)[1].split(": ", 1) for line in logged[2:])
    assert set(reasons) == {"broken.jpg", "empty.png", "phone.heic", "grey.png", "clear.png"}
    assert reasons["grey.png"] == "its mode is L, and the model takes RGB"
    assert reasons["clear.png"] == "its mode is RGBA, with transparency"
    assert "HEIC images are not supported" in reasons["phone.heic"]


def test_invalid_files_are_skipped_or_converted_as_configured(photos: Path) -> None:
    add_invalid_files(photos)
    skipped, logged = read(photos, policy="skip")
    assert (len(skipped.images), len(logged)) == (6, 2 + 5)
    converted, logged = read(photos, policy="convert")
    assert (len(converted.images), len(logged)) == (8, 2 + 5)
    assert (converted.images[-1] == 7).all()
    assert sum(line.startswith(f"{photos}: converted 1 of ") for line in logged) == 2


def test_a_grey_model_takes_grey_files(photos: Path) -> None:
    with pytest.raises(DataError, match="6 of 6 files are invalid"):
        read(photos, GREY)
    assert read(photos, GREY, "convert")[0].images.shape == (6, 8, 12, 1)


def test_a_mode_is_foreign_by_its_colours(photos: Path) -> None:
    """A palette is grey or coloured; CMYK is neither, because its look depends on the ink."""
    ramp = Image.fromarray(np.arange(100, dtype=np.uint8).reshape(10, 10))
    grey, coloured = ramp.convert("P"), Image.new("P", (9, 9))
    coloured.putpalette([200, 10, 10])
    for name, image in (("grey", grey), ("coloured", coloured), ("ink", Image.new("CMYK", (9, 9)))):
        (photos / name).mkdir()
        image.save(photos / name / "0.tiff")
    for spec, invalid in ((RGB, ["grey", "ink"]), (GREY, ["coloured", "ink"])):
        names = ("grey", "coloured", "ink")
        logged = [
            line
            for name in names
            for line in read(photos / name, spec, "convert")[1]
            if "its mode" in line
        ]
        assert [Path(line.partition(": ")[0]).name for line in logged] == invalid


def test_a_file_that_may_not_be_read_is_invalid(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_bytes = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "4.tiff":
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    found, logged = read(photos, policy="skip")
    assert len(found.images) == 5
    assert found.paths[-1].name == "5.PNG"
    assert f"{photos}/b/4.tiff: [Errno 13] Permission denied" in logged


def test_a_linked_folder_is_logged_as_skipped(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (photos / "c").symlink_to(tmp_path / "elsewhere")
    assert f"{photos}/c: skipped, because it is a link to a folder" in read(photos)[1]


def test_an_empty_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no images in"):
        read(tmp_path)


def deep(directory: Path, peaks: list[int]) -> Path:
    directory.mkdir()
    for index, peak in enumerate(peaks):
        Image.fromarray(np.linspace(index, peak, 96, dtype=np.uint16).reshape(8, 12)).save(
            directory / f"{index}.png"
        )
    return directory


@pytest.mark.parametrize(
    ("peak", "white"), [(16383, 16383), (4095, 4095), (2000, 4095), (200, 255)]
)
def test_sixteen_bits_that_use_little_of_their_range_are_logged_with_the_fix(
    tmp_path: Path, peak: int, white: int
) -> None:
    directory = deep(tmp_path / "deep", [peak // 2, peak])
    (line,) = (line for line in read(directory, GREY)[1] if line.startswith("warning"))
    assert f"the 2 16-bit files in {directory} never exceed {peak} of 65535" in line
    assert line.endswith(f"--set input.white_16_bit={white}")
    spec = GREY.model_copy(update={"white_16_bit": white})
    found, logged = read(directory, spec)
    assert not any(line.startswith("warning") for line in logged)
    assert found.images.max() == np.round(255 * peak / white)


def test_sixteen_bits_above_white_are_logged(tmp_path: Path) -> None:
    directory = deep(tmp_path / "deep", [4095, 60000])
    twelve = GREY.model_copy(update={"white_16_bit": 4095})
    assert any(
        "1 of 2 16-bit files" in line and "up to 60000" in line
        for line in read(directory, twelve)[1]
    )
    assert not any(line.startswith("warning") for line in read(directory, GREY)[1])


def test_sixteen_bits_a_colour_are_logged(tmp_path: Path) -> None:
    """Pillow reads the upper 8, but writes none: the file is made by hand."""
    rows = b"".join(b"\0" + row.tobytes() for row in np.full((8, 12, 3), 4095, dtype=">u2"))
    header = struct.pack(">IIBBBBB", 12, 8, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    pieces = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(pieces))
    found, logged = read(tmp_path)
    assert found.images.max() == 15
    assert any(
        "1 files in" in line and "16 bits a colour, of which the upper 8 are read" in line
        for line in logged
    )


def test_files_are_decoded_in_order_by_several_threads(photos: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.csv cannot be read: .*; mend or remove it"):
        image_file.decode([photos / "a" / "0.png", photos / "labels.csv"], RGB, lambda _: None)
    logged: list[str] = []
    images = image_file.decode(read(photos)[0].paths, RGB, logged.append)
    np.testing.assert_array_equal(images, read(photos)[0].images)
    assert logged == ["decoding at 8x12: 6 files"]
