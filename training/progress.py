"""Progress of long work: a bar on a terminal; elsewhere the log has a line for each stage."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import TracebackType
from typing import NoReturn, Self, TypeVar

from tqdm import tqdm

Log = Callable[[str], None]
Item = TypeVar("Item")

STAGES_FORMAT = "{desc}{percentage:3.0f}%|{bar}| {elapsed} passed, {remaining} left"


class Stages:
    """A log that shows a run in stages as one bar, with the time left in all, if stderr is a terminal.

    `seconds` has the stages in order, and how long each is expected to take in proportion to the others.
    """

    def __init__(self, log: Log, seconds: Mapping[str, float]) -> None:
        self._log, self._seconds, self._stage = log, seconds, next(iter(seconds))
        # Every step is drawn. The time left follows from the average speed, because a stage may end in a jump.
        total = sum(seconds.values())
        self._bar = tqdm(
            total=total,
            disable=None,
            smoothing=0,
            miniters=0,
            mininterval=0,
            bar_format=STAGES_FORMAT,
        )
        self.shown = not self._bar.disable
        self.begin(self._stage)

    def __call__(self, text: str) -> None:
        with tqdm.external_write_mode():
            self._log(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._move(list(self._seconds)[-1], 1)
        self._bar.close()

    def begin(self, stage: str) -> None:
        """Show a stage, before which all others are done."""
        self._stage = stage
        self._bar.set_description(stage, refresh=False)
        self._move(stage, 0)
        self._bar.refresh()

    def advance(self, items: Iterable[Item], count: int) -> Iterator[Item]:
        """The items, during which the stage passes."""
        for index, item in enumerate(items, 1):
            yield item
            self._move(self._stage, index / count)

    def _move(self, stage: str, share: float) -> None:
        before = list(self._seconds.values())[: list(self._seconds).index(stage)]
        self._bar.update(max(0, sum(before) + share * self._seconds[stage] - self._bar.n))


def bar(
    total: int, desc: str, unit: str, *, initial: int = 0, shown: bool = True
) -> "tqdm[NoReturn]":
    """Progress bar on stderr, disabled unless stderr is a terminal and `shown` is true."""
    return tqdm(total=total, desc=desc, unit=unit, initial=initial, disable=None if shown else True)


def track(results: Iterable[Item], count: int, desc: str, unit: str, log: Log) -> Iterator[Item]:
    """The results; their progress is shown by the bar of a run in stages, else by one of their own, or in a line.

    Of `silence` nothing is shown.
    """
    if log is silence:
        yield from results
        return
    if isinstance(log, Stages) and log.shown:
        yield from log.advance(results, count)
        return
    with bar(count, desc, unit) as own:
        if own.disable:
            log(f"{desc}: {count} {unit}s")
        for result in results:
            yield result
            own.update()


def begin(stage: str, log: Log) -> None:
    """Begin a stage, if the log shows a run in stages."""
    if isinstance(log, Stages):
        log.begin(stage)


def step_through(items: Collection[Item], log: Log) -> Iterable[Item]:
    """The items, during which a stage passes, if the log shows a run in stages."""
    return log.advance(items, len(items)) if isinstance(log, Stages) else items


def silence(_: str) -> None:
    """Log nothing."""
