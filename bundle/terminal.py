"""Output of both command lines: tables, JSON, next steps, closed pipes and full disks."""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import TextIO

BROKEN_PIPE_STATUS = 141  # 128 + SIGPIPE, as shells show a program that `head` ended

AddRow = Callable[..., None]


def run(command: Callable[[], int]) -> int:
    """Run a command and flush its output. Returns its exit status.

    If nothing reads the output any more, the command ends without an error message.
    """
    try:
        with ExitStack() as stack:
            if sys.stdout:
                stack.enter_context(redirect_stdout(_Output(sys.stdout)))
            stack.callback(print, end="", flush=True)
            return command()
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE_STATUS
    except OutputError as error:
        _discard_output()
        print(f"error: standard output cannot be written: {error.strerror}", file=sys.stderr)
        return 1


class OutputError(OSError):
    """Standard output cannot be written, such as on a full disk."""


class _Output:
    """Standard output, whose errors are OutputError, or BrokenPipeError."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _output_errors():
            return self._stream.write(text)

    def flush(self) -> None:
        with _output_errors():
            self._stream.flush()


@contextmanager
def _output_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(error.errno, error.strerror) from None


def _discard_output() -> None:
    """Discard what is buffered, because the interpreter would fail to flush it at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def name_python() -> str:
    """Return the running interpreter as a user types it here, such as .venv/bin/python."""
    path = Path(sys.executable)
    with suppress(ValueError, FileNotFoundError):  # it is elsewhere, or this directory is removed
        return shlex.quote(str(path.relative_to(Path.cwd())))
    return path.name if shutil.which(path.name) == str(path) else shlex.quote(str(path))


def name_module(module: str) -> str:
    """Return the command that runs a module, as a user types it here."""
    return f"{name_python()} -m {module}"


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
