"""Folders of images of every kind that people have."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.manifest import InputSpec
from tests.training.conftest import tiny
from training import folder
from training.data import load
from training.errors import DataError

GREY = InputSpec(height=8, width=12, channels=1)
RGB = InputSpec(height=8, width=12, channels=3)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six RGB photographs in two subfolders, in several formats and sizes, and a file that is none."""
    directory = tmp_path / "photos"
    generator = np.random.default_rng(0)
    for index, name in enumerate(("a/0.png", "a/1.jpg", "a/2.bmp", "b/3.webp", "b/4.tiff", "b/5.PNG")):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (10 + index, 20, 3), dtype=np.uint8)).save(path)
    (directory / "labels.csv").write_text("not an image")
    (directory / ".hidden.png").write_bytes(b"")
    return directory


def read(directory: Path, spec: InputSpec = RGB, unfit: str = "stop") -> tuple[folder.Folder, list[str]]:
    told: list[str] = []
    return folder.read(directory, spec, unfit, told.append), told  # type: ignore[arg-type]


def test_every_format_and_size_is_brought_to_the_models_size(photos: Path) -> None:
    found, told = read(photos)
    assert found.images.shape == (6, 8, 12, 3)
    assert found.classes == ("a", "b")
    assert found.labels is not None
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert told == [f"{photos}: passed over what is no image by its name, files: 1"]


def test_without_subfolders_there_are_no_classes(photos: Path) -> None:
    found, _ = read(photos / "a")
    assert found.labels is None
    assert found.classes == ()


def test_the_digest_is_of_names_and_bytes(photos: Path) -> None:
    before = read(photos)[0].sha256
    assert read(photos)[0].sha256 == before
    (photos / "a" / "0.png").rename(photos / "a" / "9.png")
    assert read(photos)[0].sha256 != before


def spoil(photos: Path) -> None:
    (photos / "a" / "broken.jpg").write_bytes((photos / "a" / "1.jpg").read_bytes()[:100])
    (photos / "a" / "empty.png").touch()
    (photos / "b" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    Image.fromarray(np.full((9, 9), 7, dtype=np.uint8)).save(photos / "b" / "grey.png")
    Image.new("RGBA", (9, 9), (1, 2, 3, 4)).save(photos / "b" / "clear.png")


def test_every_unfit_file_is_named_with_its_fault_before_the_end(photos: Path) -> None:
    spoil(photos)
    told: list[str] = []
    with pytest.raises(DataError, match=r"5 of 11 files are unfit; mend them, or set data\.unfit to skip or convert"):
        folder.read(photos, RGB, "stop", told.append)
    faults = dict(line.rsplit("/", 1)[1].split(": ", 1) for line in told[1:])
    assert set(faults) == {"broken.jpg", "empty.png", "phone.heic", "grey.png", "clear.png"}
    assert faults["grey.png"] == "its mode is L, and the model takes RGB"
    assert faults["clear.png"] == "its mode is RGBA, with transparency"
    assert "HEIC images are not read" in faults["phone.heic"]


def test_unfit_files_are_left_out_or_converted_as_asked(photos: Path) -> None:
    spoil(photos)
    skipped, told = read(photos, unfit="skip")
    assert (len(skipped.images), len(told)) == (6, 1 + 5)
    converted, told = read(photos, unfit="convert")
    assert (len(converted.images), len(told)) == (8, 1 + 5)
    assert (converted.images[-1] == 7).all()


def test_a_grey_model_takes_grey_files(photos: Path) -> None:
    with pytest.raises(DataError, match="6 of 6 files are unfit"):
        read(photos, GREY)
    assert read(photos, GREY, "convert")[0].images.shape == (6, 8, 12, 1)


def test_a_mode_is_foreign_by_its_colours(photos: Path) -> None:
    """A palette is grey or coloured; CMYK is neither, for how it looks depends on the ink."""
    ramp = Image.fromarray(np.arange(100, dtype=np.uint8).reshape(10, 10))
    grey, coloured = ramp.convert("P"), Image.new("P", (9, 9))
    coloured.putpalette([200, 10, 10])
    for name, image in (("grey", grey), ("coloured", coloured), ("ink", Image.new("CMYK", (9, 9)))):
        (photos / name).mkdir()
        image.save(photos / name / "0.tiff")
    for spec, unfit in ((RGB, ["grey", "ink"]), (GREY, ["coloured", "ink"])):
        names = ("grey", "coloured", "ink")
        told = [line for name in names for line in read(photos / name, spec, "convert")[1]]
        assert [Path(line.partition(": ")[0]).parent.name for line in told] == unfit


def test_a_file_that_may_not_be_read_is_unfit(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_bytes = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "4.tiff":
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    found, told = read(photos, unfit="skip")
    assert len(found.images) == 5
    assert f"{photos}/b/4.tiff: [Errno 13] Permission denied" in told


def test_a_linked_folder_is_said_to_be_passed_over(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (photos / "c").symlink_to(tmp_path / "elsewhere")
    assert f"{photos}/c: links to folders are not followed" in read(photos)[1]


def test_an_empty_folder_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no images in"):
        read(tmp_path)


def test_a_folder_is_split_by_the_seed(photos: Path) -> None:
    size = ["input.height=8", "input.width=12", "input.channels=3"]
    recipe = tiny("mnist-undercomplete", "data.dataset=folder", "data.test=2", *size)
    first, again = (load(recipe.data, recipe.input, 0, photos, lambda _: None) for _ in range(2))
    other = load(recipe.data, recipe.input, 3, photos, lambda _: None)
    assert (len(first.training), len(first.test)) == (4, 2)
    np.testing.assert_array_equal(first.test.images, again.test.images)
    assert not np.array_equal(first.test.images, other.test.images)
    assert list(first.sha256) == ["photos"]
    with pytest.raises(DataError, match=r"6 images are too few: 6 are held out \(data.test\)"):
        load(recipe.data.model_copy(update={"test": 6}), recipe.input, 0, photos, lambda _: None)
    with pytest.raises(DataError, match="--data names the directory of the images"):
        load(recipe.data, recipe.input, 0, None, lambda _: None)
