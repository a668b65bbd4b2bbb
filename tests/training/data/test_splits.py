import numpy as np
import pytest

from tests.training.conftest import split, tiny
from training.data import splits
from training.data.splits import Split
from training.errors import DataError


def test_the_splits_do_not_overlap_and_hold_every_image() -> None:
    numbered = Split(np.arange(256, dtype=np.uint8).reshape(-1, 1, 1, 1), np.arange(256))
    splits = split(tiny(), numbered)
    assert (len(splits.training), len(splits.validation), len(splits.calibration)) == (186, 20, 50)
    all_splits = (splits.training, splits.validation, splits.calibration)
    assert sorted(np.concatenate([each.images for each in all_splits]).ravel().tolist()) == list(
        range(256)
    )
    for each in all_splits:
        np.testing.assert_array_equal(each.images.ravel(), each.labels)


def test_too_few_images_are_refused(images: Split) -> None:
    with pytest.raises(DataError, match=r"70 images .* too few: 50 \(data.calibration\) and 20 "):
        split(tiny(), images.take(np.arange(70)))


def test_a_sample_of_many_images_is_spread_over_all() -> None:
    images = np.arange(9000, dtype=np.uint16).view(np.uint8).reshape(9000, 1, 2, 1)
    found = splits.sample(images).reshape(-1, 2).copy().view(np.uint16).ravel()
    assert len(found) == splits.MAX_SAMPLE_IMAGES
    assert (found[0], found[-1]) == (0, 8999)
    assert set(np.diff(found.astype(int))) == {1, 2}
    assert len(splits.sample(images[:7])) == 7
