"""Progress of long work: a bar on a terminal, else a log line for each stage."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import TracebackType
from typing import NoReturn, Self, TypeVar

from tqdm import tqdm

Log = Callable[[str], None]
Item = TypeVar("Item")

STAGES_FORMAT = "{desc}{percentage:3.0f}%|{bar}| {elapsed} passed, {remaining} left"


class Stages:
    """A log that shows a run in stages as one bar with the total time left, on a terminal.

    `seconds` has the stages in order, with estimated durations; only their proportions matter.
    """

    def __init__(self, log: Log, seconds: Mapping[str, float]) -> None:
        self._log, self._seconds, self._stage = log, seconds, next(iter(seconds))
        self._bar = tqdm(
            total=sum(seconds.values()),
            disable=None,
            smoothing=0,  # average speed, because a stage may end in a jump
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
        """Begin a stage; all stages before it are complete."""
        self._stage = stage
        self._bar.set_description(stage, refresh=False)
        self._move(stage, 0)
        self._bar.refresh()

    def advance(self, items: Iterable[Item], count: int) -> Iterator[Item]:
        """Iterate over the items, and advance the stage with each."""
        for index, item in enumerate(items, 1):
            yield item
            self._move(self._stage, index / count)

    def _move(self, stage: str, share: float) -> None:
        before = list(self._seconds.values())[: list(self._seconds).index(stage)]
        self._bar.update(max(0, sum(before) + share * self._seconds[stage] - self._bar.n))


def open_bar(
    total: int, desc: str, unit: str, *, initial: int = 0, shown: bool = True
) -> "tqdm[NoReturn]":
    """A progress bar on stderr, disabled unless stderr is a terminal and `shown` is true."""
    return tqdm(total=total, desc=desc, unit=unit, initial=initial, disable=None if shown else True)


def track(results: Iterable[Item], count: int, desc: str, unit: str, log: Log) -> Iterator[Item]:
    """Iterate over the results, and show their progress.

    The bar of a run in stages advances, if the log has one. Otherwise a new bar opens, or the log
    gets a line. With `silence`, nothing is shown.
    """
    if log is silence:
        yield from results
        return
    if isinstance(log, Stages) and log.shown:
        yield from log.advance(results, count)
        return
    with open_bar(count, desc, unit) as bar:
        if bar.disable:
            log(f"{desc}: {count} {unit}s")
        for result in results:
            yield result
            bar.update()


def begin(stage: str, log: Log) -> None:
    """Begin a stage, if the log shows stages."""
    if isinstance(log, Stages):
        log.begin(stage)


def step_through(items: Collection[Item], log: Log) -> Iterable[Item]:
    """Iterate over the items, and advance the stage if the log shows stages."""
    return log.advance(items, len(items)) if isinstance(log, Stages) else items


def silence(_: str) -> None:
    """Log nothing."""
