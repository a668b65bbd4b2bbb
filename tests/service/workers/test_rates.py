from pathlib import Path

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from service.workers.rates import SharedRates


def test_workers_share_the_rate_of_a_key(tmp_path: Path) -> None:
    workers = [SharedRates(tmp_path, lambda: 5.0) for _ in range(2)]
    assert [workers[index % 2].hit("a", 3) for index in range(5)] == [True] * 3 + [False] * 2
    assert workers[0].hit("b", 3)


def test_the_window_slides(tmp_path: Path) -> None:
    now = 5.5
    rates = SharedRates(tmp_path, lambda: now)
    assert [rates.hit("a", 4) for _ in range(5)] == [True] * 4 + [False]
    now = 6.0  # all of them were in the last second
    assert not rates.hit("a", 4)
    now = 6.5  # half of them
    assert [rates.hit("a", 4) for _ in range(3)] == [True, True, False]
    now = 8.0
    assert [rates.hit("a", 4) for _ in range(5)] == [True] * 4 + [False]


def test_a_worker_admits_as_many_as_the_package_does(tmp_path: Path) -> None:
    shared = SharedRates(tmp_path, lambda: 100.25)
    limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
    limit = RateLimitItemPerSecond(7)
    assert sum(shared.hit("a", 7) for _ in range(20)) == 7
    assert sum(limiter.hit(limit, "a") for _ in range(7)) == 7
