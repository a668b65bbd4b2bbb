import pytest

from service.api.throttle import RejectionThrottle


def test_a_burst_passes_at_once_and_later_callers_at_the_rate() -> None:
    throttle = RejectionThrottle(rate=10, burst=3, max_wait=60)
    assert [throttle.reserve(5.0) for _ in range(6)] == pytest.approx([0, 0, 0, 0.1, 0.2, 0.3])


def test_callers_below_the_rate_never_wait() -> None:
    throttle = RejectionThrottle(rate=10, burst=1, max_wait=60)
    assert [throttle.reserve(0.125 * n) for n in range(50)] == [0.0] * 50


def test_after_a_quiet_time_there_is_a_burst_again_and_no_larger_one() -> None:
    throttle = RejectionThrottle(rate=10, burst=2, max_wait=60)
    for _ in range(5):
        throttle.reserve(0.0)
    assert [throttle.reserve(100.0) for _ in range(3)] == pytest.approx([0, 0, 0.1])


def test_no_caller_waits_longer_than_the_maximum() -> None:
    throttle = RejectionThrottle(rate=10, burst=1, max_wait=0.5)
    waits = [throttle.reserve(0.0) for _ in range(100)]
    assert waits[:5] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert waits[5:] == pytest.approx([0.5] * 95)
    assert throttle.reserve(0.8) == 0.0
