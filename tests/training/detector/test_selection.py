"""The choice of a detector: what is clearly better, else what is preferred."""

import numpy as np
import pytest

from bundle.conformal import ConformalScores
from bundle.manifest import Calibration, ErrorMapScale
from training.detector import selection
from training.detector.components import ComponentName, ComponentNames
from training.detector.cross_fitting import Scores
from training.detector.selection import Outcome
from training.detector.synthetic_anomalies import KINDS

OF_EACH = 30
LABELS = np.repeat(np.arange(len(KINDS)), OF_EACH)
EXTENTS = np.tile(np.geomspace(0.04, 0.25, OF_EACH), len(KINDS))
A: ComponentNames = ("gaussians",)
B: ComponentNames = ("neighbours",)


def outcome(distance: float, seed: int = 0) -> Outcome:
    """Scores of two Gaussians at a distance; of one seed, of the same images."""
    normal, anomalous = np.split(np.random.default_rng(seed).normal(size=60 + len(LABELS)), [60])
    return Outcome(normal.astype(np.float32), (anomalous + distance).astype(np.float32))


def test_a_clearly_better_candidate_wins() -> None:
    assert selection.choose({A: outcome(1), B: outcome(2)}, LABELS, seed=0) == B
    assert selection.choose({B: outcome(2), A: outcome(1)}, LABELS, seed=0) == B


def test_the_preferred_candidate_wins_if_none_is_clearly_better() -> None:
    close = {A: outcome(1.0, seed=1), B: outcome(1.02, seed=2)}
    assert selection.choose(close, LABELS, seed=0) == A
    assert selection.choose(dict(reversed(close.items())), LABELS, seed=0) == B


@pytest.mark.parametrize(
    ("before", "after", "gains"), [(1.0, 1.02, False), (2.0, 2.1, False), (1.0, 2.0, True)]
)
def test_a_dearer_candidate_must_remove_a_good_part_of_the_error(
    before: float, after: float, gains: bool
) -> None:
    assert selection.gains(outcome(after), outcome(before), LABELS, seed=0) == gains


def test_a_random_gain_is_no_gain() -> None:
    few = np.arange(len(KINDS))
    better, worse = (
        Outcome(each.normal[:5], each.anomalous[:5])
        for each in (outcome(1.5, seed=5), outcome(1.2))
    )
    assert not selection.gains(better, worse, few, seed=0)


def test_the_area_of_the_bootstrap_without_a_draw_is_that_of_the_images() -> None:
    found = outcome(1)
    areas = selection.Bootstrap(60, LABELS, seed=0).areas(found)
    assert areas.shape == (selection.BOOTSTRAP_DRAWS, len(KINDS))
    np.testing.assert_allclose(
        areas.mean(axis=0), [*selection.auroc_by_kind(found, LABELS).values()], atol=0.02
    )
    assert selection.mean_auroc(found, LABELS) == pytest.approx(areas.mean(), abs=0.02)


def test_a_sum_is_of_standardised_components() -> None:
    generator = np.random.default_rng(0)

    def scores(scale: float) -> tuple[Scores, Scores]:
        normal, anomalous = (
            Scores((scale * generator.normal(size=size)).astype(np.float32), None)
            for size in (40, 20)
        )
        return normal, anomalous

    given: dict[ComponentName, tuple[Scores, Scores]] = {
        "gaussians": scores(1),
        "neighbours": scores(100),
    }
    alone = [selection.combine_components(names, given).normal for names in (A, B)]
    np.testing.assert_array_equal(alone[1], given["neighbours"][0].scores)
    expected = sum((each - each.mean()) / each.std() for each in alone) / 2
    np.testing.assert_allclose(
        selection.combine_components((*A, *B), given).normal, expected, atol=1e-5
    )


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.25])
def test_recall_is_the_share_that_the_service_would_call_anomalous(rate: float) -> None:
    found = outcome(1.5)
    calibration = Calibration(
        method="any",
        scores=tuple(map(float, np.sort(found.normal))),
        error_map=ErrorMapScale(low=0, high=1),
    )
    called = ConformalScores(calibration).p_values(found.anomalous) <= rate
    recall = selection.recall(found, LABELS, rate)
    assert recall is not None
    assert [*recall] == [*KINDS]
    np.testing.assert_allclose([*recall.values()], called.reshape(len(KINDS), -1).mean(axis=1))


def test_a_rate_with_too_few_images_allows_no_recall() -> None:
    assert selection.recall(outcome(1), LABELS, 0.01) is None


@pytest.mark.parametrize(
    ("distance", "is_weak"), [(0, True), (0.1, True), (1.0, False), (4, False)]
)
def test_a_detector_hardly_better_than_random_is_weak(distance: float, is_weak: bool) -> None:
    assert (
        selection.weak_bound(outcome(distance), LABELS, EXTENTS, seed=0) <= selection.RANDOM_AUROC
    ) == is_weak


def test_a_detector_is_weak_if_it_finds_all_kinds_but_two() -> None:
    found = outcome(4)
    found.anomalous[LABELS < 2] -= 4
    assert selection.weak_bound(found, LABELS, EXTENTS, seed=0) <= selection.RANDOM_AUROC
    found.anomalous[LABELS == 1] += 4
    assert selection.weak_bound(found, LABELS, EXTENTS, seed=0) > selection.RANDOM_AUROC


def test_a_detector_is_not_weak_if_it_misses_small_anomalies() -> None:
    found = outcome(4)
    found.anomalous[np.median(EXTENTS) > EXTENTS] -= 4
    assert selection.weak_bound(found, LABELS, EXTENTS, seed=0) > selection.RANDOM_AUROC
