import numpy as np
import pytest

from training.metrics import detection


def test_the_auroc_is_the_share_of_pairs_in_order() -> None:
    assert detection.auroc(np.array([0.0, 1.0]), np.array([1.0, 2.0])) == 0.875
    assert detection.auroc(np.zeros(3), np.zeros(5)) == 0.5


def test_the_standard_error_is_that_of_hanley_and_mcneil() -> None:
    """Their table 3 and figure 3: an area of 0.893 of 58 and 51 images."""
    assert detection.standard_error(0.893, 58, 51) == pytest.approx(0.032, abs=0.001)
    assert detection.standard_error(1.0, 20, 20) == 0


def test_pixels_outside_the_masks_of_anomalous_images_are_normal() -> None:
    normal, anomalous = np.zeros((1, 2, 2)), np.array([[[1.0, 0.0], [0.5, 0.0]]])
    mask = np.array([[[True, False], [False, False]]])
    assert detection.pixel_auroc(normal, anomalous, mask) == 1.0
    assert detection.pixel_auroc(normal, -anomalous, mask) == 0.0


def test_every_region_counts_the_same_in_aupro() -> None:
    """One of two regions, the larger, is found at any rate."""
    masks = np.zeros((1, 40, 40), dtype=bool)
    masks[0, 2:22, 2:22] = masks[0, 30:32, 30:32] = True
    maps = np.random.default_rng(0).random((1, 40, 40))
    maps[0, 2:22, 2:22] = 2.0
    maps[0, 30:32, 30:32] = -1.0
    normal = np.random.default_rng(1).random((4, 40, 40))
    assert detection.aupro(normal, maps, masks) == pytest.approx(0.5, abs=0.01)
    maps[0, 30:32, 30:32] = 2.0
    assert detection.aupro(normal, maps, masks) == pytest.approx(1.0, abs=0.01)


def test_random_maps_find_as_much_of_a_defect_as_they_have_false_positives() -> None:
    generator = np.random.default_rng(0)
    masks = np.zeros((8, 64, 64), dtype=bool)
    masks[:, 10:40, 10:40] = True
    maps = generator.random((8, 64, 64))
    assert detection.aupro(generator.random((8, 64, 64)), maps, masks) == pytest.approx(
        0.15, abs=0.01
    )
