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


def test_good_ones_may_lie_beside_those_to_test_with(tmp_path: Path) -> None:
    shutil.copytree(COOKIES, tmp_path / "a")
    for path in (tmp_path / "a" / "train" / "good").iterdir():
        shutil.move(path, tmp_path / "a" / path.name)
    shutil.rmtree(tmp_path / "a" / "train")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "good").mkdir()
    for path in [*(tmp_path / "b").glob("*.*")]:
        shutil.move(path, tmp_path / "b" / "good")
    expected = photographs.read(COOKIES, SPEC, "convert", quiet)
    for home in ("a", "b"):
        found = photographs.read(tmp_path / home, SPEC, "convert", quiet)
        assert len(found.training) == 24
        assert found.normal is not None
        assert expected.normal is not None
        np.testing.assert_array_equal(found.normal, expected.normal)
        np.testing.assert_array_equal(found.masks, expected.masks)


def test_what_is_good_is_not_guessed(tmp_path: Path) -> None:
    shutil.copytree(COOKIES, tmp_path, dirs_exist_ok=True)
    bare = tmp_path / "test" / "one.png"
    shutil.copy(next((tmp_path / "test" / "good").iterdir()), bare)
    with pytest.raises(DataError, match=r"one\.png has no label"):
        photographs.read(tmp_path, SPEC, "convert", quiet)
    bare.unlink()
    (tmp_path / "train" / "good").rename(tmp_path / "train" / "fine")
    with pytest.raises(DataError, match=r"holds fine: put the good ones into .*train/good"):
        photographs.read(tmp_path, SPEC, "convert", quiet)


def test_one_good_one_is_too_few_to_test_with(tmp_path: Path) -> None:
    shutil.copytree(COOKIES, tmp_path, dirs_exist_ok=True)
    for path in sorted((tmp_path / "test" / "good").iterdir())[1:]:
        path.unlink()
    with pytest.raises(DataError, match="holds one photograph: take at least 2"):
        load(tmp_path)


def test_thin_defects_outlive_the_reduction_and_empty_masks_are_none(tmp_path: Path) -> None:
    shutil.copytree(COOKIES, tmp_path, dirs_exist_ok=True)
    line, nothing = np.zeros((640, 480), dtype=np.uint8), np.zeros((640, 480), dtype=np.uint8)
    line[:, 100] = 255
    masks = tmp_path / "ground_truth" / "cracked"
    Image.fromarray(line).save(masks / "anomaly-1_mask.png")
    Image.fromarray(nothing).save(masks / "anomaly-2_mask.png")
    found = photographs.read(tmp_path, SPEC, "convert", quiet)
    assert found.masked.tolist()[:3] == [True, False, True]
    assert found.masks[0, :, 10].all()
    assert found.masks[0].sum() == 64


def test_masks_are_found_by_the_whole_name_and_in_any_colour(tmp_path: Path) -> None:
    shutil.copytree(COOKIES, tmp_path, dirs_exist_ok=True)
    (tmp_path / "test" / "cracked" / "anomaly-1.jpg").rename(tmp_path / "test" / "cracked" / "a[1].jpg")
    mask = np.zeros((64, 48, 3), dtype=np.uint8)
    mask[:5, :, 2] = 1
    Image.fromarray(mask).save(tmp_path / "ground_truth" / "cracked" / "a[1].png")
    (tmp_path / "ground_truth" / "cracked" / "a[1].json").write_text("{}")
    told: list[str] = []
    found = photographs.read(tmp_path, SPEC, "convert", told.append)
    assert found.masks[0, :5].all()
    assert not found.masks[0, 5:].any()
    unmarked = tmp_path / "test" / "cracked" / "anomaly-6.jpg"
    assert told == [f"{unmarked}: no defect is marked; it counts by its score alone"]


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


def test_no_more_than_a_fifth_is_held_out_to_test_with() -> None:
    dataset = load(COOKIES / "train" / "good", "data.test=1000")
    assert (len(dataset.training), len(dataset.test)) == (20, 4)


def test_too_few_photographs_are_refused(tmp_path: Path) -> None:
    for path in sorted((COOKIES / "train" / "good").iterdir())[:23]:
        shutil.copy(path, tmp_path)
    with pytest.raises(DataError, match="19 photographs of good parts are too few to train on: take at least 20"):
        load(tmp_path)
    with pytest.raises(DataError, match="--data names the directory"):
        load(COOKIES / "nowhere")
