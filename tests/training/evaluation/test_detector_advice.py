"""Advice from the trials to the person who trains a detector."""

import numpy as np
import pytest

from training.detector.components import ComponentName, ComponentNames
from training.detector.selection import Outcome
from training.detector.synthetic_anomalies import KINDS, SyntheticAnomalies
from training.detector.trials import Choice, Trials
from training.evaluation import detector_advice

EACH = 20  # anomalies of each kind
LABELS = np.repeat(np.arange(len(KINDS)), EACH)
CONSTANT = np.full((10, 8, 8, 3), 100, np.uint8)


def outcome(distance: float) -> Outcome:
    normal, anomalous = np.split(np.random.default_rng(0).normal(size=60 + len(LABELS)), [60])
    return Outcome(normal.astype(np.float32), (anomalous + distance).astype(np.float32))


def trials(
    *,
    neighbours: float,
    gaussians: float | None = None,
    pca_mean: float | None = None,
    extent: float = 0.2,
) -> Trials:
    """Trials of candidates with these distances of anomalous scores; the first was chosen."""
    distances: dict[ComponentName, float | None] = {
        "neighbours": neighbours,
        "gaussians": gaussians,
        "pca-mean": pca_mean,
    }
    outcomes: dict[ComponentNames, Outcome] = {
        (name,): outcome(far) for name, far in distances.items() if far is not None
    }
    images = np.zeros((len(LABELS), 8, 8, 3), np.uint8)
    anomalies = SyntheticAnomalies(
        images, np.zeros_like(LABELS), LABELS, np.full(len(LABELS), extent)
    )
    names, chosen = next(iter(outcomes.items()))
    return Trials(Choice((256, 256), names, 2000), chosen, outcomes, anomalies, {})


def advice(
    found: Trials, images: np.ndarray = CONSTANT, calibrated: int = 200, larger: bool = True
) -> tuple[str, ...]:
    return detector_advice.give_advice(found, images, calibrated, larger)


def test_a_good_detector_of_many_photographs_gets_no_advice() -> None:
    assert advice(trials(neighbours=4)) == ()


@pytest.mark.parametrize(
    ("larger", "remedy"), [(True, "a larger detector.sizes or closer"), (False, "try closer")]
)
def test_missed_small_anomalies_advise_larger_photographs(larger: bool, remedy: str) -> None:
    (sentence,) = advice(trials(neighbours=0.5, extent=0.05), larger=larger)
    assert remedy in sentence
    assert "below a tenth of the side are found at a rate of 0.1" in sentence


def test_neighbours_far_before_gaussians_mean_that_positions_vary() -> None:
    assert "position of the parts varies" in advice(trials(neighbours=4, gaussians=1))[0]
    assert advice(trials(neighbours=4, gaussians=4)) == ()


def test_light_that_varies_is_named() -> None:
    images = (CONSTANT * np.linspace(0.5, 1.5, 10)[:, None, None, None]).astype(np.uint8)
    assert advice(trials(neighbours=4), images) == (
        "The brightness varies by 32%: keep the light constant.",
    )


def test_few_photographs_advise_more() -> None:
    assert advice(trials(neighbours=4), calibrated=40) == (
        "Take 59 more photographs for verdicts at a rate of 0.01.",
    )


@pytest.mark.parametrize(
    ("count", "line"),
    [
        (
            212,
            "212 normal images: the minimum false positive rate is 1 in 213;"
            " 787 more allow 1 in 1,000",
        ),
        (
            20,
            "20 normal images: the minimum false positive rate is 1 in 21; 79 more allow 1 in 100",
        ),
        (1500, "1,500 normal images: the minimum false positive rate is 1 in 1,501"),
    ],
)
def test_a_calibration_is_described_in_plain_words(count: int, line: str) -> None:
    assert detector_advice.format_calibration(count) == line


def test_a_detector_near_random_is_weak() -> None:
    assert detector_advice.explain_weakness(trials(neighbours=2), seed=0) is None
    reason = detector_advice.explain_weakness(trials(neighbours=0), seed=0)
    assert reason is not None
    assert "not above 0.5, that of random scores" in reason


def test_the_table_has_a_row_for_each_candidate_and_a_column_for_each_kind() -> None:
    metrics = {"auroc_against_defects": 0.97, "pca_mean_auroc_against_defects": 0.9}
    labelled = detector_advice.select_labelled(metrics)
    head, *rows = detector_advice.format_table(
        trials(neighbours=2, pca_mean=1), labelled
    ).splitlines()
    for column in (*KINDS, "mean", "labelled"):
        assert column in head
    assert [row[:22].strip() for row in rows] == ["neighbours", "pca-mean (baseline)", "chosen"]
    assert rows[1].endswith("0.900")
    assert rows[2].endswith("0.970")


def test_recall_stands_by_rate_and_kind() -> None:
    found = detector_advice.tabulate_recall(trials(neighbours=2))
    assert [*found] == ["0.02", "0.05", "0.1", "0.2"]
    assert all(of.keys() == KINDS.keys() for of in found.values())
    assert len(detector_advice.format_recall(found).splitlines()) == 5
