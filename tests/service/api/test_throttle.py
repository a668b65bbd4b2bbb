import pytest

from service.api.throttle import Throttle


def test_a_burst_passes_at_once_and_those_behind_it_at_the_rate() -> None:
    throttle = Throttle(rate=10, burst=3, max_wait=60)
    assert [throttle.reserve(5.0) for _ in range(6)] == pytest.approx([0, 0, 0, 0.1, 0.2, 0.3])


def test_who_comes_no_faster_than_the_rate_never_waits() -> None:
    throttle = Throttle(rate=10, burst=1, max_wait=60)
    assert [throttle.reserve(0.125 * n) for n in range(50)] == [0.0] * 50


def test_after_a_quiet_time_there_is_a_burst_again_and_no_larger_one() -> None:
    throttle = Throttle(rate=10, burst=2, max_wait=60)
    for _ in range(5):
        throttle.reserve(0.0)
    assert [throttle.reserve(100.0) for _ in range(3)] == pytest.approx([0, 0, 0.1])


def test_nobody_waits_longer_than_the_longest_and_a_crowd_is_soon_forgotten() -> None:
    throttle = Throttle(rate=10, burst=1, max_wait=0.5)
    waits = [throttle.reserve(0.0) for _ in range(100)]
    assert waits[:5] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert waits[5:] == pytest.approx([0.5] * 95)
    assert throttle.reserve(0.8) == 0.0
