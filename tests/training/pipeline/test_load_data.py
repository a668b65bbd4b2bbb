from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.manifest import InputSpec
from tests.training.conftest import COOKIES, photographs
from training import recipe
from training.data import image_file, photo_folder
from training.data.image_set import DetectorData
from training.errors import DataError
from training.pipeline import load_data
from training.progress import Log, silence
from training.recipe import DetectorRecipe

SPEC = InputSpec(height=64, width=48, channels=3)
SIZE = SPEC.height, SPEC.width


def load(directory: Path, *overrides: str, log: Log = silence) -> DetectorData:
    chosen = recipe.load("photo-anomaly", ["detector.sizes=[128, 192, 256]", *overrides])
    assert isinstance(chosen, DetectorRecipe)
    return load_data.load_detector(chosen, directory, log)


def test_a_detector_is_trained_and_tested_on_the_images_of_the_folder() -> None:
    data, found = load(COOKIES), photo_folder.find(COOKIES, SPEC, "convert", silence)
    np.testing.assert_array_equal(
        data.training.read(SPEC, silence), image_file.decode(found.training, SPEC, silence)
    )
    np.testing.assert_array_equal(
        data.test.read(SPEC, silence), image_file.decode(found.normal, SPEC, silence)
    )
    assert data.calibration is None
    assert data.anomalous is not None
    drawn, masked = data.anomalous.read_masks(SIZE)
    assert drawn.shape == (5, *SIZE)
    assert drawn.any(axis=(1, 2)).all()
    assert masked.tolist() == [True] * 5


def test_an_anomalous_photograph_needs_no_mask(cookies: Path) -> None:
    (cookies / "ground_truth" / "cracked" / "anomaly-2_mask.png").unlink()
    data = load(cookies)
    assert data.anomalous is not None
    drawn, masked = data.anomalous.read_masks(SIZE)
    assert masked.tolist() == drawn.any(axis=(1, 2)).tolist() == [True, False, True, True, True]


@pytest.mark.parametrize("most", [3, 1000])
def test_without_normal_test_images_some_are_held_out(most: int) -> None:
    logged: list[str] = []
    data = load(COOKIES / "train" / "good", f"data.test={most}", log=logged.append)
    count = min(most, 4)
    assert (len(data.training), len(data.test)) == (20 - count, count)
    assert data.anomalous is None
    assert any(
        line.startswith(f"{count} of 20 photographs are held out to test with") for line in logged
    )


def test_below_twenty_photographs_none_is_held_out(tmp_path: Path) -> None:
    data = load(photographs(tmp_path / "photos", 19))
    assert (len(data.training), len(data.test)) == (19, 0)


def test_working_sizes_end_at_the_size_of_the_photographs() -> None:
    assert load(COOKIES).sizes == [(128, 128), (192, 192)]


def test_working_sizes_do_not_follow_one_small_photograph(cookies: Path) -> None:
    first = min((cookies / "train" / "good").iterdir())
    with Image.open(first) as image:
        image.resize((90, 70)).save(first)
    assert load(cookies).sizes == [(128, 128), (192, 192)]


def test_a_directory_is_needed(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"--data .*nowhere does not exist: name the directory of the images"
    ):
        load(tmp_path / "nowhere")
    chosen = recipe.load("photo-anomaly")
    assert isinstance(chosen, DetectorRecipe)
    with pytest.raises(
        DataError, match="--data is missing: name the directory of normal photographs"
    ):
        load_data.load_detector(chosen, None, silence)


def test_validation_photographs_join_those_to_train_on(cookies: Path) -> None:
    photographs(cookies / "validation", 3)
    assert len(load(cookies).training) == 23
