import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.conformal import (
    RATES,
    ConformalScores,
    allows_rate,
    find_default_rate,
    find_minimum_rate,
)
from bundle.manifest import Calibration, ErrorMapScale

SCALE = ErrorMapScale(low=0.1, high=0.5)
scores = st.floats(0, 1, width=32)


def conformal(values: list[float]) -> ConformalScores:
    return ConformalScores(Calibration(method="any", scores=tuple(sorted(values)), error_map=SCALE))


@given(st.lists(scores, min_size=1, max_size=50), scores)
def test_the_p_value_counts_calibration_scores_at_least_as_large(
    values: list[float], score: float
) -> None:
    expected = (1 + sum(value >= score for value in values)) / (len(values) + 1)
    assert conformal(values).p_values(np.array([score]))[0] == expected


@given(st.lists(scores, min_size=1, max_size=50), scores, st.floats(0.001, 0.999))
def test_verdict_and_threshold_agree(values: list[float], score: float, rate: float) -> None:
    verdict = conformal(values).verdicts(np.array([score], np.float32), rate)[0]
    if verdict.threshold is None:
        assert verdict.is_anomaly is None
        assert 1 / (len(values) + 1) > rate
    else:
        assert (
            verdict.is_anomaly == (verdict.score >= verdict.threshold) == (verdict.p_value <= rate)
        )


@pytest.mark.parametrize(("count", "decided"), [(98, False), (99, True)])
def test_one_percent_needs_99_calibration_scores(count: int, decided: bool) -> None:
    threshold = conformal([index / 1000 for index in range(count)]).threshold(0.01)
    assert (threshold is not None) == decided


@pytest.mark.parametrize(
    ("count", "rate"),
    [(1, 0.2), (4, 0.2), (9, 0.1), (18, 0.1), (19, 0.05), (31, 0.05), (98, 0.02), (99, 0.01)],
)
def test_the_default_rate_is_the_lowest_that_the_calibration_allows(
    count: int, rate: float
) -> None:
    calibrated = conformal([index / 1000 for index in range(count)])
    assert calibrated.default_rate == find_default_rate(count) == rate
    allowed = [each for each in RATES if calibrated.threshold(each) is not None]
    assert allowed[:1] == ([rate] if allowed else [])


@given(st.integers(1, 10**6))
def test_the_minimum_rate_is_allowed_and_hardly_above_the_bound(count: int) -> None:
    minimum = find_minimum_rate(count)
    assert allows_rate(count, minimum)
    assert 1 <= minimum * (count + 1) < 1.1
    assert 0 < minimum < 1


@given(st.integers(1, 300), st.floats(0.001, 0.999))
def test_a_rate_is_allowed_if_it_has_a_threshold(count: int, rate: float) -> None:
    calibrated = conformal([0.5] * count)
    allowed = allows_rate(count, rate)
    assert (calibrated.threshold(rate) is not None) == (calibrated.reason(rate) is None) == allowed


def test_the_reason_for_no_verdict_names_the_rate_that_gives_one() -> None:
    reason = conformal([0.5] * 31).reason(0.01)
    advice = "set false_positive_rate to 0.032 or more"
    assert reason == f"31 calibration images allow no rate below 0.032: {advice}"


def test_the_false_positive_rate_on_unseen_normal_scores_is_the_requested_rate() -> None:
    generator = np.random.default_rng(0)
    calibrated = conformal(generator.normal(size=5000).tolist())
    unseen = generator.normal(size=20_000)
    for rate in (0.01, 0.05, 0.5):
        assert (calibrated.p_values(unseen) <= rate).mean() == pytest.approx(rate, rel=0.15)
