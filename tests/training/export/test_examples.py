import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.manifest import InputSpec
from tests.training.conftest import COOKIES
from training.data.splits import Split
from training.errors import DataError
from training.export import examples

SPEC = InputSpec(height=64, width=64, channels=3)


def _read(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_each_class_has_as_many_examples(tmp_path: Path) -> None:
    images = np.arange(400, dtype=np.uint8).repeat(16).reshape(400, 4, 4, 1)
    test = Split(images, np.arange(400) % 2)
    examples.write_images(test, ("even", "odd"), tmp_path / "examples.zip")
    found = _read(tmp_path / "examples.zip")
    labels = [name.split("/")[0] for name in found]
    assert (labels.count("even"), labels.count("odd")) == (150, 150)
    pixels = np.asarray(Image.open(io.BytesIO(found["odd/150.png"])))
    assert (pixels == images[1, ..., 0]).all()


def test_images_without_labels_are_examples_too(tmp_path: Path) -> None:
    examples.write_images(Split(np.zeros((2, 4, 4, 1), np.uint8)), (), tmp_path / "examples.zip")
    assert [*_read(tmp_path / "examples.zip")] == ["000.png", "001.png"]


def test_photographs_are_reduced_and_labelled_by_their_folders(tmp_path: Path) -> None:
    lines: list[str] = []
    for name in ("one", "other"):
        examples.write_photographs(COOKIES, SPEC, tmp_path / name, lines.append)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert lines[0] == "kept 10 of 10 photographs, of 2 labels"
    found = _read(tmp_path / "one")
    labels = {path.name for path in (COOKIES / "test").iterdir()}
    assert {name.split("/")[0] for name in found} == labels
    assert all(
        max(Image.open(io.BytesIO(content)).size) <= examples.MAX_SIDE for content in found.values()
    )


def test_an_unreadable_photograph_is_named(tmp_path: Path) -> None:
    (tmp_path / "part.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"part\.jpg cannot be read"):
        examples.write_photographs(tmp_path, SPEC, tmp_path / "examples.zip", lambda _: None)


def test_a_photograph_of_16_bits_keeps_its_levels(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    Image.fromarray(ramp).save(tmp_path / "part.png")
    examples.write_photographs(tmp_path, SPEC, tmp_path / "examples.zip", lambda _: None)
    (content,) = _read(tmp_path / "examples.zip").values()
    levels = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    assert levels.mean() == pytest.approx(127, abs=3)
