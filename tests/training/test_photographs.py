"""Photographs in the layout of MVTec AD, or just in a folder."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.manifest import InputSpec
from tests.training.conftest import COOKIES
from training import data, photographs, recipe
from training.errors import DataError

SPEC = InputSpec(height=64, width=48, channels=3)


def quiet(_: str) -> None:
    pass


def test_the_layout_says_what_is_good_and_where_defects_are() -> None:
    found = photographs.read(COOKIES, SPEC, "convert", quiet)
    assert len(found.training) == 24
    assert found.normal is not None
    assert found.strange is not None
    assert (len(found.normal), len(found.strange)) == (6, 6)
    assert found.kinds == ("cracked",)
    assert found.labels.tolist() == [0] * 6
    assert found.masked.tolist() == [True] * 5 + [False]
    assert found.masks.shape == (6, 64, 48)
    assert found.masks[0].any()
    assert not found.masks[5].any()
    assert list(found.sha256) == ["cookies/train/good", "cookies/test"]


def test_a_folder_is_taken_for_good_ones() -> None:
    found = photographs.read(COOKIES / "train" / "good", SPEC, "convert", quiet)
    assert len(found.training) == 24
    assert found.normal is None
    assert found.strange is None


@pytest.mark.parametrize(("value", "mode"), [(255, "L"), (1, "L"), (1, "P"), (True, "1")])
def test_masks_may_be_of_any_size_and_mark_defects_by_any_number(tmp_path: Path, value: int, mode: str) -> None:
    shutil.copytree(COOKIES, tmp_path, dirs_exist_ok=True)
    mask = np.zeros((128, 96), dtype=np.uint8)
    mask[:64] = value
    drawn = Image.fromarray(mask, "L").convert("1", dither=Image.Dither.NONE) if mode == "1" else Image.fromarray(mask)
    if mode == "1":
        drawn = Image.fromarray(mask > 0)
    if mode == "P":
        drawn.putpalette([0, 0, 0, 30, 160, 70])
    shutil.rmtree(tmp_path / "ground_truth")
    (tmp_path / "ground_truth" / "cracked").mkdir(parents=True)
    drawn.save(tmp_path / "ground_truth" / "cracked" / "anomaly-1.png")
    found = photographs.read(tmp_path, SPEC, "convert", quiet)
    assert found.masked.tolist() == [True] + [False] * 5
    assert found.masks[0, :32].all()
    assert not found.masks[0, 32:].any()


def test_a_mask_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    shutil.copytree(COOKIES, tmp_path, dirs_exist_ok=True)
    (tmp_path / "ground_truth" / "cracked" / "anomaly-2_mask.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"anomaly-2_mask\.png cannot be read"):
        photographs.read(tmp_path, SPEC, "convert", quiet)


def of_photographs(*overrides: str) -> recipe.Recipe:
    return recipe.load("photo-anomaly", ["input.height=64", "input.width=48", *overrides])


def load(directory: Path, *overrides: str) -> data.Dataset:
    config = of_photographs(*overrides)
    return data.load(config.data, config.input, 0, directory, quiet)


def test_without_good_ones_to_test_with_some_are_held_out() -> None:
    dataset = load(COOKIES / "train" / "good", "data.test=4")
    assert (len(dataset.training), len(dataset.test)) == (20, 4)
    assert dataset.outliers is None


def test_too_few_photographs_are_refused() -> None:
    with pytest.raises(DataError, match="19 photographs of good parts are too few to train on: take at least 20"):
        load(COOKIES / "train" / "good", "data.test=5")
    with pytest.raises(DataError, match="--data names the directory"):
        load(COOKIES / "nowhere")
