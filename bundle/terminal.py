"""Output of both command lines: tables, JSON, next steps, and pipes that are closed."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

BROKEN_PIPE_STATUS = 141  # 128 + SIGPIPE, as shells show a program that `head` ended

AddRow = Callable[..., None]


def run(command: Callable[[], int]) -> int:
    """Run a command and flush its output. Returns its exit status.

    If nothing reads the output any more, the command ends without an error message.
    """
    try:
        try:
            return command()
        finally:
            print(end="", flush=True)
    except BrokenPipeError:
        # Without it, the interpreter would flush again at its exit, and fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE_STATUS


def print_json(document: Mapping[str, object]) -> None:
    """Print a document on standard output."""
    print(json.dumps(document, indent=2))


def print_next(text: str) -> None:
    """Print a next step on standard error, because standard output has only results."""
    print(end="", flush=True)  # because the results come first
    print(text, file=sys.stderr)


@contextmanager
def open_table(columns: Sequence[str], line: str) -> Iterator[AddRow]:
    """Yield a function that adds the cells of a row.

    On a terminal, if rich is installed, it is a row of a table. Elsewhere, it is a line in the
    format `line`.
    """

    def print_line(*cells: str) -> None:
        print(line.format(*cells))

    if not (sys.stdout and sys.stdout.isatty()) or os.environ.get("TERM") == "dumb":
        yield print_line
        return
    try:
        from rich import box
        from rich.console import Console
        from rich.live import Live
        from rich.table import Table
    except ImportError:
        yield print_line
        return
    rows: list[Sequence[str]] = []

    def draw() -> Table:
        table = Table(*columns, box=box.SIMPLE_HEAD)
        for cells in rows:
            table.add_row(*cells)
        return table

    def add_row(*cells: str) -> None:
        rows.append(cells)

    console = Console(file=sys.stdout, markup=False, emoji=False, highlight=False)
    with Live(get_renderable=draw, console=console, refresh_per_second=1):
        yield add_row
