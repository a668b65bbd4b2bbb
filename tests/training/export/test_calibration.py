import numpy as np
import pytest

from training.export.calibration import summarise


def maps_of(count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, (count, 8, 8)).astype(np.float32)


@pytest.mark.parametrize(("count", "share"), [(30, 0.9), (300, 0.99)])
def test_a_heatmap_is_bright_beyond_the_largest_errors_of_nearly_all_normal_images(
    count: int, share: float
) -> None:
    maps = maps_of(count)
    maps[:, 3, 4] = 1 + np.arange(count)
    found = summarise(maps.max(axis=(1, 2)), maps, "any").error_map
    assert found.high == pytest.approx(1 + share * (count - 1))


@pytest.mark.parametrize("atypical", [1, 3])
def test_few_atypical_photographs_among_few_leave_the_scale_of_heatmaps_as_it_is(
    atypical: int,
) -> None:
    maps = maps_of(40)
    without = summarise(maps.mean(axis=(1, 2)), maps, "any").error_map
    maps[:atypical] += 100
    found = summarise(maps.mean(axis=(1, 2)), maps, "any").error_map
    assert found.low == pytest.approx(without.low, rel=0.05)
    assert found.high == pytest.approx(without.high, rel=0.05)
