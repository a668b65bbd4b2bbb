"""Progress of long work: a bar on a terminal; elsewhere the log has a line for each stage."""

from collections.abc import Callable
from typing import NoReturn

from tqdm import tqdm

Log = Callable[[str], None]


def bar(total: int, desc: str, unit: str, *, initial: int = 0, shown: bool = True) -> "tqdm[NoReturn]":
    """Progress bar on stderr, disabled unless stderr is a terminal and `shown` is true."""
    return tqdm(total=total, desc=desc, unit=unit, initial=initial, disable=None if shown else True)


def silence(_: str) -> None:
    """Log nothing."""
