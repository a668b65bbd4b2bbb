import numpy as np
import pytest

from training.calibration import summary


@pytest.mark.parametrize(("count", "share"), [(30, 0.9), (300, 0.99)])
def test_a_heatmap_is_bright_where_an_error_is_larger_than_those_of_nearly_all_normal_images(
    count: int, share: float
) -> None:
    maps = np.zeros((count, 8, 8), dtype=np.float32)
    maps[:, 3, 4] = np.arange(count)  # one place in each image, usual everywhere else
    found = summary(maps.max(axis=(1, 2)), maps, "any").error_map
    assert found.high == pytest.approx(share * (count - 1))
    assert found.low < found.high


def test_one_strange_photograph_among_few_leaves_defects_bright() -> None:
    maps = np.random.default_rng(0).uniform(0, 1, (30, 8, 8)).astype(np.float32)
    maps[0, 0, 0] = 100
    assert summary(maps.mean(axis=(1, 2)), maps, "any").error_map.high < 1
