"""No image is scored by a component fitted to it, and p-values of new images are uniform."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from bundle.conformal import ConformalScores
from tests.training.detector.fakes import random_encoded
from training.detector import fitters
from training.detector.components import Component, ComponentName, ComponentNames, ComponentOutput
from training.detector.config import DetectorConfig
from training.detector.cross_fitting import assign_folds, cross_score, cross_score_anomalies
from training.detector.fit import FittedDetector, choose_map_component, fit
from training.detector.fitters import Fitter
from training.detector.image_features import FeatureBatch, ImageFeatures, Indices
from training.detector.trials import Choice
from training.export.calibration import summarise
from training.progress import silence


class Memory(Component):
    """Knows the numbers of the images that it was fitted to: scores those 1, and all others 0."""

    inputs = ("latents",)

    def __init__(self, encoded: ImageFeatures) -> None:
        super().__init__()
        self.known = encoded.latents[:, 0]

    def forward(self, batch: FeatureBatch) -> ComponentOutput:
        return ComponentOutput(torch.isin(batch["latents"][:, 0], self.known).float(), None)


class Echo(Component):
    """Scores each image with its number, and maps it."""

    inputs = ("latents",)

    def forward(self, batch: FeatureBatch) -> ComponentOutput:
        numbers = batch["latents"][:, 0]
        return ComponentOutput(numbers, numbers[:, None, None].expand(-1, 2, 2))


def numbered(numbers: Sequence[int] | Indices) -> ImageFeatures:
    return ImageFeatures.from_arrays({"latents": np.array(numbers, np.float32)[:, None]})


def fake(monkeypatch: pytest.MonkeyPatch, make: Callable[[ImageFeatures], Component]) -> None:
    """Replace the fitter of `nearest-images` by a function of the images that it is fitted to."""

    class Fake(Fitter):
        def fit_without(self, fold: int | None) -> Component:
            return make(self.encoded.take(np.flatnonzero(self.mask_kept(fold))))

    monkeypatch.setitem(fitters.FITTERS, "nearest-images", Fake)


@pytest.mark.parametrize(("count", "most", "found"), [(23, 5, 5), (4, 20, 4), (40, 20, 20)])
def test_every_image_is_in_one_of_even_folds(count: int, most: int, found: int) -> None:
    folds = assign_folds(count, most, seed=0)
    assert len(folds) == count
    sizes = np.bincount(folds)
    assert len(sizes) == found
    assert sizes.max() - sizes.min() <= 1
    np.testing.assert_array_equal(folds, assign_folds(count, most, seed=0))
    assert count == found or (folds != assign_folds(count, most, seed=1)).any()


def test_no_image_is_scored_by_a_component_that_was_fitted_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake(monkeypatch, Memory)
    found = cross_score(
        "nearest-images", numbered(range(23)), assign_folds(23, 5, seed=0), bank=1, seed=0
    )
    assert found.scores.tolist() == [0] * 23


def test_synthetic_anomalies_are_scored_without_the_fold_of_their_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake(monkeypatch, Memory)
    sources = np.random.default_rng(0).integers(0, 23, 60)
    folds = assign_folds(23, 5, seed=0)
    _, found = cross_score_anomalies(
        "nearest-images", numbered(range(23)), folds, 1, 0, numbered(sources), sources
    )
    assert found.scores.tolist() == [0] * 60
    beside = (sources + 1) % 23
    _, found = cross_score_anomalies(
        "nearest-images", numbered(range(23)), folds, 1, 0, numbered(beside), sources
    )
    np.testing.assert_array_equal(found.scores == 1, folds[beside] != folds[sources])


def test_scores_and_maps_stand_in_the_order_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, lambda _: Echo())
    sources = np.arange(23)[::-1]
    folds = assign_folds(23, 5, seed=0)
    images, others = cross_score_anomalies(
        "nearest-images", numbered(range(23)), folds, 1, 0, numbered(range(100, 123)), sources
    )
    assert images.maps is not None
    assert images.scores.tolist() == images.maps[:, 1, 1].tolist() == list(range(23))
    assert others.scores.tolist() == list(range(100, 123))


def fitted(
    name: ComponentName, encoded: ImageFeatures, held_out: ImageFeatures | None, seed: int = 0
) -> FittedDetector:
    config = DetectorConfig(sizes=((64, 64),), candidates=((name,),), map="gaussians")
    return fit(Choice((64, 64), (name,), 100), encoded, held_out, config, seed, silence)


@torch.no_grad()
def p_values(found: FittedDetector, fresh: ImageFeatures) -> np.ndarray:
    calibrated = ConformalScores(summarise(found.scores, found.maps, "any"))
    scores = [
        found.scorer(*(batch[name] for name in found.scorer.inputs))[0].numpy()
        for batch in fresh.batches()
    ]
    return calibrated.p_values(np.concatenate(scores))


@pytest.mark.parametrize("name", ["local-neighbours", "gaussians", "neighbours", "nearest-images"])
def test_p_values_of_new_normal_images_are_neither_invalid_nor_wasteful(
    name: ComponentName,
) -> None:
    draws, calibrated = 8, 40
    shares = []
    for seed in range(draws):
        found = fitted(name, random_encoded(calibrated, seed=2 * seed), None, seed)
        shares.append((p_values(found, random_encoded(100, seed=2 * seed + 1)) <= 0.2).mean())
    error = np.sqrt(0.2 * 0.8 * (1 / calibrated + 1 / 100) / draws)
    assert abs(np.mean(shares) - 0.2) < 3 * error


@pytest.mark.parametrize("split", ["held out", "cross-fitted"])
def test_there_is_a_score_a_map_and_a_distance_of_each_image_that_calibrates(split: str) -> None:
    held_out = random_encoded(12, seed=1) if split == "held out" else None
    found = fitted("nearest-images", random_encoded(30), held_out)
    count = len(held_out) if held_out else 30
    assert found.scores.shape == found.latent_distances.shape == (count,)
    assert found.maps.shape == (count, 8, 8)
    assert found.scorer.map == "gaussians"
    assert found.scores.mean() == pytest.approx(0, abs=1e-3)
    assert found.scores.std() == pytest.approx(1, abs=1e-3)


@torch.no_grad()
def test_the_scorer_gives_held_out_images_the_scores_that_calibrate_it() -> None:
    held_out = random_encoded(8, seed=1)
    found = fitted("neighbours", random_encoded(30), held_out)
    (batch,) = held_out.batches()
    scores, maps, distances = found.scorer(*(batch[name] for name in found.scorer.inputs))
    np.testing.assert_allclose(scores, found.scores, atol=1e-4)
    np.testing.assert_allclose(distances, found.latent_distances, atol=1e-5)
    assert maps.shape == (8, 64, 64)
    assert maps.min() >= 0


@pytest.mark.parametrize(
    ("names", "configured", "mapped"),
    [
        (("gaussians", "neighbours"), "pca-peak", "neighbours"),
        (("gaussians",), "local-neighbours", "local-neighbours"),
        (("gaussians",), None, "gaussians"),
        (("nearest-images",), "pca-peak", "pca-peak"),
    ],
)
def test_the_map_is_that_of_a_memory_bank_else_the_configured_one(
    names: ComponentNames, configured: ComponentName | None, mapped: ComponentName
) -> None:
    config = DetectorConfig(sizes=((64, 64),), candidates=(names,), map=configured)
    assert choose_map_component(names, config) == mapped


def test_a_candidate_without_a_map_needs_a_configured_one() -> None:
    with pytest.raises(
        ValueError, match="nearest-images has no anomaly map; name one of local-neighbours"
    ):
        DetectorConfig(sizes=((64, 64),), candidates=(("nearest-images",),))
