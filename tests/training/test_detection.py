import numpy as np
import pytest

from training import detection
from training.detection import Baselines


def test_pixels_outside_the_masks_of_strange_images_are_normal() -> None:
    normal, strange = np.zeros((1, 2, 2)), np.array([[[1.0, 0.0], [0.5, 0.0]]])
    mask = np.array([[[True, False], [False, False]]])
    assert detection.pixel_auroc(normal, strange, mask) == 1.0
    assert detection.pixel_auroc(normal, -strange, mask) == 0.0


def test_every_region_counts_the_same_in_aupro() -> None:
    """Of a large and a small defect only the large one is found, at any rate: half of the regions."""
    masks = np.zeros((1, 40, 40), dtype=bool)
    masks[0, 2:22, 2:22] = masks[0, 30:32, 30:32] = True
    maps = np.random.default_rng(0).random((1, 40, 40))
    maps[0, 2:22, 2:22] = 2.0
    maps[0, 30:32, 30:32] = -1.0
    normal = np.random.default_rng(1).random((4, 40, 40))
    assert detection.aupro(normal, maps, masks) == pytest.approx(0.5, abs=0.01)
    maps[0, 30:32, 30:32] = 2.0
    assert detection.aupro(normal, maps, masks) == pytest.approx(1.0, abs=0.01)


def test_chance_finds_as_much_of_a_defect_as_it_raises_alarms() -> None:
    generator = np.random.default_rng(0)
    masks = np.zeros((8, 64, 64), dtype=bool)
    masks[:, 10:40, 10:40] = True
    maps = generator.random((8, 64, 64))
    assert detection.aupro(generator.random((8, 64, 64)), maps, masks) == pytest.approx(0.15, abs=0.01)


def test_the_baselines_know_their_training_images() -> None:
    training = np.random.default_rng(0).integers(0, 256, (30, 100, 80, 3), dtype=np.uint8)
    found = Baselines(training, seed=0)
    strange = found.scores(255 - training[:4] // 2)
    for name, scores in found.scores(training[:4]).items():
        assert scores.max() < strange[name].min()
