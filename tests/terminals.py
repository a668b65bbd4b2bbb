"""Terminals of commands in processes of their own, and of commands in this process."""

import io
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_into_closed_pipe(*module: str) -> tuple[int, str]:
    """Run `python -m` a module whose output nothing reads. Returns its status, and its errors."""
    with subprocess.Popen(
        [sys.executable, "-m", *module],
        env=os.environ | {"PYTHONUNBUFFERED": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        errors = process.stderr.read()
    return process.returncode, errors


def run_onto_full_disk(unbuffered: str, *module: str) -> tuple[int, str]:
    """Run `python -m` a module whose output is on a full disk. Returns its status, and its errors.

    `unbuffered` is the value of PYTHONUNBUFFERED.
    """
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", *module],
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    return done.returncode, done.stderr


def list_undescribed(document: Mapping[str, object], guide: str) -> list[str]:
    """Return the entries of a JSON document that its guide in `docs` does not name."""
    text = (ROOT / "docs" / guide).read_text(encoding="utf-8")
    return [name for name in document if f"`{name}`" not in text]


class Terminal:
    """A terminal, whose other end `theirs` is the standard output or error of a process."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        termios.tcsetwinsize(self.theirs, (24, 200))

    def wait_for(self, pattern: str) -> str:
        """Read until text is shown that matches. Raises OSError if all writers end before."""
        shown = ""
        while not re.search(pattern, shown):
            shown += os.read(self._ours, 1000).decode()
        return shown

    def close(self) -> None:
        os.close(self._ours)


class TerminalText(io.StringIO):
    """Text that is written to a terminal by this process."""

    def isatty(self) -> bool:
        return True
