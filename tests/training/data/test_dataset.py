import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.manifest import InputSpec
from tests.conftest import DATA
from tests.idx import write_idx
from tests.training.conftest import tiny
from training.data import dataset, mnist
from training.errors import DataError
from training.progress import Log
from training.recipe import Recipe


def load_digits(directory: Path) -> dataset.Dataset:
    recipe = tiny()
    return dataset.load(recipe.data, recipe.input, recipe.seed, directory, lambda _: None)


def test_the_directory_holds_the_files_or_a_folder_of_the_data_set() -> None:
    for directory in (DATA, DATA / "mnist"):
        loaded = load_digits(directory)
        assert loaded.test.images.shape == (128, 28, 28, 1)
        assert len(loaded.training) == 256
        assert loaded.classes == tuple("0123456789")
        assert loaded.test.labels is not None
        assert loaded.test.labels[:4].tolist() == [7, 2, 1, 0]
        assert {name.split("-")[1] for name in loaded.sha256} == {"images", "labels"}


def test_images_can_come_without_labels(tmp_path: Path) -> None:
    for part in ("train", "t10k"):
        shutil.copy(DATA / "mnist" / f"{part}-images-idx3-ubyte.gz", tmp_path)
    loaded = load_digits(tmp_path)
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
    assert load_digits(tmp_path).classes == ()
    assert load_digits(tmp_path).training.labels is None


def test_labels_of_another_data_set_are_refused(tmp_path: Path) -> None:
    for file in (DATA / "mnist").glob("*.gz"):
        shutil.copy(file, tmp_path)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.full(128, 25, np.uint8))
    with pytest.raises(DataError, match="a label is above 9, the last of mnist"):
        load_digits(tmp_path)


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


def test_images_of_another_size_than_the_recipes_are_refused() -> None:
    with pytest.raises(DataError, match="but the recipe's input is"):
        dataset.check_size(
            np.zeros((2, 28, 28, 1), np.uint8), InputSpec(height=32, width=32, channels=1)
        )


def of_folder(*overrides: str) -> Recipe:
    size = ["input.height=8", "input.width=12", "input.channels=3"]
    return tiny("mnist-undercomplete", "data.dataset=folder", "data.test=2", *size, *overrides)


def load_folder(directory: Path, log: Log = lambda _: None) -> dataset.Dataset:
    recipe = of_folder()
    return dataset.load(recipe.data, recipe.input, 0, directory, log)


def test_a_folder_is_split_by_the_seed(photos: Path) -> None:
    recipe = of_folder()
    first, again = (
        dataset.load(recipe.data, recipe.input, 0, photos, lambda _: None) for _ in range(2)
    )
    other = dataset.load(recipe.data, recipe.input, 3, photos, lambda _: None)
    assert (len(first.training), len(first.test)) == (4, 2)
    np.testing.assert_array_equal(first.test.images, again.test.images)
    assert not np.array_equal(first.test.images, other.test.images)
    assert list(first.sha256) == ["photos"]
    with pytest.raises(DataError, match=r"6 images are too few: 6 are held out \(data.test\)"):
        dataset.load(
            recipe.data.model_copy(update={"test": 6}), recipe.input, 0, photos, lambda _: None
        )
    with pytest.raises(DataError, match="--data names the directory of the images"):
        dataset.load(recipe.data, recipe.input, 0, None, lambda _: None)


@pytest.fixture
def parted(photos: Path) -> Path:
    """The photographs in `train`, and for each a blue one in `test`, in the same subfolders."""
    (photos / "train").mkdir()
    for name in "ab":
        (photos / name).rename(photos / "train" / name)
        shutil.copytree(photos / "train" / name, photos / "test" / name)
    for index, path in enumerate(sorted((photos / "test").rglob("*.*"))):
        Image.new("RGB", (20, 10), (index, 255, 255)).save(path)
    return photos


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "TEST")])
def test_test_images_are_not_trained_on(parted: Path, names: tuple[str, str]) -> None:
    for usual, name in zip(("train", "test"), names, strict=True):
        (parted / usual).rename(parted / name)
    loaded = load_folder(parted)
    assert loaded.classes == ("a", "b")
    assert (len(loaded.training), len(loaded.test)) == (6, 6)
    assert loaded.test.images[..., 2].min() > 250
    assert loaded.training.labels is not None
    assert loaded.test.labels is not None
    assert loaded.training.labels.tolist() == loaded.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert list(loaded.sha256) == [f"photos/{name}" for name in names]


def test_test_images_may_lie_beside_those_to_train_on(photos: Path) -> None:
    for index in range(3):
        (photos / "test").mkdir(exist_ok=True)
        Image.new("RGB", (20, 10), (index, 255, 255)).save(photos / "test" / f"{index}.png")
    logged: list[str] = []
    loaded = load_folder(photos, logged.append)
    assert (len(loaded.training), len(loaded.test)) == (6, 3)
    assert loaded.classes == ()
    warning = f"warning: there are images without a class in {photos / 'test'}"
    assert f"{warning}: the classes of {photos} are ignored" in logged


@pytest.mark.parametrize("name", ["val", "validation", "valid"])
def test_validation_images_join_those_to_train_on(parted: Path, name: str) -> None:
    shutil.copytree(parted / "train" / "a", parted / name / "a")
    for index, path in enumerate(sorted((parted / name / "a").iterdir())):
        Image.new("RGB", (20, 10), (255, index, 0)).save(path)
    logged: list[str] = []
    loaded = load_folder(parted, logged.append)
    assert (len(loaded.training), len(loaded.test)) == (9, 6)
    assert loaded.training.labels is not None
    assert loaded.training.labels.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0]
    assert f"{parted / name}: added its 3 images to the training images" in logged


def test_valid_is_a_class_if_there_are_no_splits(photos: Path) -> None:
    (photos / "a").rename(photos / "valid")
    (photos / "b").rename(photos / "invalid")
    assert load_folder(photos).classes == ("invalid", "valid")


def test_a_class_that_is_not_trained_on_is_named(parted: Path) -> None:
    (parted / "test" / "b").rename(parted / "test" / "c")
    with pytest.raises(
        DataError, match=r"test holds c, but .*train does not: name its folders after a, b"
    ):
        load_folder(parted)


def test_one_split_in_two_folders_is_refused(parted: Path) -> None:
    for name in ("val", "validation"):
        shutil.copytree(parted / "train", parted / name)
    with pytest.raises(
        DataError, match=r"val and .*validation are the same split: put all images into .*val"
    ):
        load_folder(parted)


def test_images_in_no_split_are_logged(parted: Path) -> None:
    (parted / "raw").mkdir()
    Image.new("RGB", (9, 9)).save(parted / "one.png")
    logged: list[str] = []
    load_folder(parted, logged.append)
    assert f"{parted}: skipped beside test, train: raw, 1 images" in logged


def test_an_image_in_two_splits_is_refused(parted: Path) -> None:
    shutil.copy(parted / "train" / "a" / "0.png", parted / "test" / "b" / "9.png")
    with pytest.raises(
        DataError,
        match=r"9\.png \(photos/test\) is a copy of .*0\.png \(photos/train\): remove one",
    ):
        load_folder(parted)


def test_copies_among_the_training_images_are_skipped(photos: Path) -> None:
    shutil.copy(photos / "a" / "0.png", photos / "b" / "6.png")
    logged: list[str] = []
    loaded = load_folder(photos, logged.append)
    assert len(loaded.training) + len(loaded.test) == 6
    copy, original = photos / "b" / "6.png", photos / "a" / "0.png"
    assert (
        f"warning: 1 of 7 files are copies of others, as {copy} of {original}: skipped them"
        in logged
    )


def test_one_test_image_is_too_few(parted: Path) -> None:
    for path in sorted((parted / "test").rglob("*.*"))[1:]:
        path.unlink()
    with pytest.raises(DataError, match="holds one image: take at least 2 to test with"):
        load_folder(parted)


def test_a_directory_that_does_not_exist_is_reported(photos: Path) -> None:
    with pytest.raises(
        DataError, match=r"--data .*nowhere does not exist: name the directory of the images"
    ):
        load_folder(photos / "nowhere")
    with pytest.raises(DataError, match=r"--data .*0\.png is not a directory"):
        load_folder(photos / "a" / "0.png")
