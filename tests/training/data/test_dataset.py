import shutil
from pathlib import Path

import numpy as np
import pytest

from bundle.manifest import InputSpec
from tests.conftest import DATA
from tests.idx import write_idx
from tests.training.conftest import tiny
from training.data import dataset, mnist, splits
from training.errors import DataError


def load(directory: Path) -> dataset.Dataset:
    recipe = tiny()
    return dataset.load(recipe.data, recipe.input, recipe.seed, directory, lambda _: None)


def test_the_directory_holds_the_files_or_a_folder_of_the_data_set() -> None:
    for directory in (DATA, DATA / "mnist"):
        loaded = load(directory)
        assert loaded.test.images.shape == (128, 28, 28, 1)
        assert len(loaded.training) == 256
        assert loaded.classes == tuple("0123456789")
        assert loaded.test.labels is not None
        assert loaded.test.labels[:4].tolist() == [7, 2, 1, 0]
        assert {name.split("-")[1] for name in loaded.sha256} == {"images", "labels"}


def test_images_can_come_without_labels(tmp_path: Path) -> None:
    for part in ("train", "t10k"):
        shutil.copy(DATA / "mnist" / f"{part}-images-idx3-ubyte.gz", tmp_path)
    loaded = load(tmp_path)
    assert loaded.training.labels is None
    assert loaded.classes == ()


def test_labels_of_another_number_than_the_images_are_refused(tmp_path: Path) -> None:
    shutil.copy(DATA / "mnist" / "t10k-images-idx3-ubyte.gz", tmp_path)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.zeros(7, np.uint8))
    with pytest.raises(DataError, match="mnist t10k: 128 images, but 7 labels"):
        mnist.load_test("mnist", tmp_path)


def test_labels_are_taken_only_if_both_splits_have_them(tmp_path: Path) -> None:
    for file in (DATA / "mnist").glob("*.gz"):
        shutil.copy(file, tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    assert load(tmp_path).classes == ()
    assert load(tmp_path).training.labels is None


def test_labels_of_another_data_set_are_refused(tmp_path: Path) -> None:
    for file in (DATA / "mnist").glob("*.gz"):
        shutil.copy(file, tmp_path)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.full(128, 25, np.uint8))
    with pytest.raises(DataError, match="a label is above 9, the last of mnist"):
        load(tmp_path)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"there is no train-images-idx3-ubyte\.gz in .*--data names"
    ):
        mnist.load_training("mnist", tmp_path)


def test_outliers_come_from_a_folder_of_their_own() -> None:
    outliers = dataset.load_outliers("fashion-mnist", DATA)
    assert outliers is not None
    assert len(outliers.images) == 64
    assert dataset.load_outliers("fashion-mnist", DATA / "mnist") is None


def test_a_sample_of_many_images_is_spread_over_all() -> None:
    images = np.arange(9000, dtype=np.uint16).view(np.uint8).reshape(9000, 1, 2, 1)
    found = splits.sample(images).reshape(-1, 2).copy().view(np.uint16).ravel()
    assert len(found) == splits.MAX_SAMPLE_IMAGES
    assert (found[0], found[-1]) == (0, 8999)
    assert set(np.diff(found.astype(int))) == {1, 2}
    assert len(splits.sample(images[:7])) == 7


def test_images_of_another_size_than_the_recipes_are_refused() -> None:
    with pytest.raises(DataError, match="but the recipe's input is"):
        dataset.check_size(
            np.zeros((2, 28, 28, 1), np.uint8), InputSpec(height=32, width=32, channels=1)
        )
