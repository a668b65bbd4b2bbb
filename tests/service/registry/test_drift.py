import numpy as np
import pytest

from bundle.conformal import ConformalScores
from bundle.manifest import Calibration, ErrorMapScale
from service.registry.drift import (
    BATCH_IMAGES,
    MIN_IMAGES,
    P_VALUE_BINS,
    RECENT_IMAGES,
    Drift,
    RecentValues,
    compute_psi,
)


def of(calibrated: np.ndarray) -> Calibration:
    scores = tuple(sorted(calibrated.astype(np.float32).tolist()))
    return Calibration(method="any", scores=scores, error_map=ErrorMapScale(low=0, high=1))


def drift(calibrated: np.ndarray) -> Drift:
    return Drift(ConformalScores(of(calibrated)))


def normal(count: int, seed: int, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, size=count).astype(np.float32)


@pytest.mark.parametrize("at_once", [1, 7, BATCH_IMAGES, 1000])
def test_images_verdicts_and_p_values_are_counted_however_they_come(at_once: int) -> None:
    calibrated, scores = normal(999, 0), normal(1000, 1, mean=1.0)
    followed = drift(calibrated)
    for start in range(0, len(scores), at_once):
        followed.add(scores[start : start + at_once], 0.05)
    metrics = followed.metrics()
    p_values = np.array([(1 + np.count_nonzero(calibrated >= score)) / 1000 for score in scores])
    assert metrics.images == 1000
    assert metrics.anomalous == np.count_nonzero(p_values <= 0.05) > 100
    assert np.cumsum(metrics.p_values).tolist() == [
        np.count_nonzero(p_values <= end) for end in P_VALUE_BINS
    ]
    assert metrics.sum == pytest.approx(p_values.sum())


def test_each_request_counts_at_its_own_rate() -> None:
    followed = drift(np.arange(99))
    followed.add(np.array([97.5], np.float32), 0.01)
    followed.add(np.array([97.5], np.float32), 0.02)
    assert followed.metrics().anomalous == 1


def test_images_without_a_verdict_are_not_counted_as_anomalous() -> None:
    followed = drift(np.arange(3))
    followed.add(np.array([9.0, 0.0], np.float32), 0.2)
    assert ConformalScores(of(np.arange(3))).threshold(0.2) is None
    metrics = followed.metrics()
    assert (metrics.images, metrics.anomalous) == (2, 0)
    followed.add(np.array([9.0], np.float32), 0.25)
    assert followed.metrics().anomalous == 1


def test_the_psi_is_near_0_for_images_like_those_of_calibration() -> None:
    found = []
    for seed in range(20):
        followed = drift(normal(5000, 100 + seed))
        followed.add(normal(RECENT_IMAGES, seed), 0.01)
        found.append(followed.metrics().score_psi or 0.0)
    assert np.mean(found) == pytest.approx(9 * (1 / RECENT_IMAGES + 1 / 5000), rel=0.3)


def test_the_psi_follows_its_definition_and_forgets_old_images() -> None:
    followed = drift(np.arange(1000))
    followed.add(np.full(RECENT_IMAGES, 1e9, np.float32), 0.01)
    shares = np.full(10, 0.5)
    shares[-1] += RECENT_IMAGES
    shares /= shares.sum()
    assert followed.metrics().score_psi == pytest.approx(
        np.sum((shares - 0.1) * np.log(shares / 0.1))
    )
    followed.add(np.arange(RECENT_IMAGES, dtype=np.float32), 0.01)
    assert followed.metrics().score_psi == pytest.approx(0, abs=1e-6)


def test_few_images_have_no_psi() -> None:
    followed = drift(normal(100, 0))
    assert followed.metrics().score_psi is None
    followed.add(normal(MIN_IMAGES - 1, 1), 0.01)
    assert followed.metrics().score_psi is None
    followed.add(normal(1, 2), 0.01)
    assert followed.metrics().score_psi is not None


def test_scores_that_are_all_alike_are_no_drift_from_their_like() -> None:
    followed = drift(np.zeros(50))
    followed.add(np.zeros(MIN_IMAGES, np.float32), 0.01)
    assert followed.metrics().score_psi == pytest.approx(0, abs=0.01)


def test_latent_distances_have_a_psi_of_their_own_against_their_deciles() -> None:
    scores = tuple(normal(100, 0).astype(np.float64).tolist())
    calibration = Calibration(
        method="any", scores=tuple(sorted(scores)), error_map=ErrorMapScale(low=0, high=1)
    )
    distances = normal(5000, 1)
    deciles = np.quantile(distances, np.arange(1, 10) / 10).tolist()
    like, unlike = (Drift(ConformalScores(calibration), deciles) for _ in range(2))
    like.add(normal(RECENT_IMAGES, 2), 0.01, normal(RECENT_IMAGES, 3))
    unlike.add(normal(RECENT_IMAGES, 2), 0.01, normal(RECENT_IMAGES, 3, mean=1.0))
    assert like.metrics().score_psi == unlike.metrics().score_psi
    assert (like.metrics().latent_psi or 1) < 0.05
    assert (unlike.metrics().latent_psi or 0) > 0.5


def test_tied_deciles_expect_more_images_above_them() -> None:
    recent = RecentValues.of_deciles([1, 1, 1, 1, 2, 3, 4, 5, 6])
    recent.add(np.repeat(np.arange(7, dtype=np.float32), [100, 400, 100, 100, 100, 100, 100]))
    assert compute_psi(*recent.count()) == pytest.approx(0, abs=1e-4)


def test_without_latent_distances_there_is_no_latent_psi() -> None:
    followed = drift(np.arange(1000))
    followed.add(normal(RECENT_IMAGES, 0), 0.01)
    assert followed.metrics().latent_psi is None


@pytest.mark.parametrize("deciles", [(1.0, 2.0), (9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0)])
def test_deciles_are_nine_and_ascend(deciles: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="latent_deciles must"):
        Calibration(
            method="any",
            scores=(1.0,),
            error_map=ErrorMapScale(low=0, high=1),
            latent_deciles=deciles,
        )
