import resource
from dataclasses import dataclass, field

import pytest

from service.server.connections import Connections, limit_by_files
from service.server.limits import PROBE_CONNECTIONS, ConnectionLimits

LIMITS = ConnectionLimits(max_connections=3, head_timeout=1, idle_timeout=1, send_timeout=1)


@dataclass(eq=False)
class Fake:
    """A connection that remembers what was done to it."""

    busy: bool
    since: float = 0.0
    ended: bool = False
    checked: list[float] = field(default_factory=list)

    def check(self, now: float) -> None:
        self.checked.append(now)

    def end(self) -> None:
        self.ended = True


def test_a_few_more_connections_than_the_maximum_are_for_probes() -> None:
    opened = Connections(LIMITS)
    busy = [Fake(busy=True) for _ in range(3 + PROBE_CONNECTIONS + 1)]
    assert [opened.add(each) for each in busy] == [True] * 3 + [False] * (PROBE_CONNECTIONS + 1)
    assert [each.ended for each in busy] == [False] * (3 + PROBE_CONNECTIONS) + [True]


def test_the_connection_that_has_waited_for_longest_ends_and_busy_ones_stay() -> None:
    opened = Connections(LIMITS)
    first = [Fake(busy=True, since=0), Fake(busy=False, since=2), Fake(busy=False, since=1)]
    for each in first:
        opened.add(each)
    assert opened.add(Fake(busy=False, since=3))
    assert [each.ended for each in first] == [False, False, True]
    opened.remove(first[2])
    opened.check(5.0)
    assert [each.checked for each in first] == [[5.0], [5.0], []]


@pytest.mark.parametrize(("hard", "expected"), [(256, 176), (50, 1), (10_000, 1000)])
def test_connections_are_no_more_than_the_files_of_the_process(
    hard: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))
    assert limit_by_files(1000) == expected
    assert raised == [(hard, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert limit_by_files(1000) == 1000
