import json
import re
import sys
from pathlib import Path

import pytest

from bundle import terminal
from tests.terminals import TerminalText


def open_screen(monkeypatch: pytest.MonkeyPatch) -> TerminalText:
    """Replace the standard output; in the test, because pytest does so after fixtures."""
    screen = TerminalText()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    return screen


def print_table() -> None:
    with terminal.open_table(("model", "text"), "{:8} {}") as add:
        add("a", "[red]plain[/red] :smile:")
        add("b", "9.5")


PLAIN = "a        [red]plain[/red] :smile:\nb        9.5\n"


def test_a_piped_table_is_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_table()
    assert capsys.readouterr().out == PLAIN


def test_a_terminal_shows_a_table_without_markup_and_colours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = open_screen(monkeypatch)
    print_table()
    shown = screen.getvalue()
    assert "────" in shown
    assert " a       [red]plain[/red] :smile: " in shown
    assert not re.search(r"\x1b\[[34]\d", shown)


def test_a_terminal_without_rich_or_abilities_shows_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = open_screen(monkeypatch)
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "rich", None)
        print_table()
    monkeypatch.setenv("TERM", "dumb")
    print_table()
    assert screen.getvalue() == 2 * PLAIN


def test_json_is_ascii_whatever_the_names_of_files(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_json({"output": "b\udcff.csv"})
    text = capsys.readouterr().out
    assert text.isascii()
    assert json.loads(text) == {"output": "b\udcff.csv"}


def test_a_closed_output_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    print_table()
    assert terminal.run(lambda: 3) == 3


def name_python(monkeypatch: pytest.MonkeyPatch, executable: Path, search: Path) -> str:
    """Name an interpreter, with a directory in PATH."""
    executable.parent.mkdir(parents=True, exist_ok=True)
    executable.touch(0o755)
    monkeypatch.setattr(sys, "executable", str(executable))
    monkeypatch.setenv("PATH", str(search))
    return terminal.name_python()


def test_the_running_interpreter_is_named_as_a_user_types_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here, spaced = tmp_path / ".venv" / "bin" / "python", tmp_path / "my env" / "python3"
    assert name_python(monkeypatch, here, here.parent) == ".venv/bin/python"
    assert name_python(monkeypatch, spaced, here.parent) == "'my env/python3'"
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert name_python(monkeypatch, here, tmp_path) == str(here)
    assert name_python(monkeypatch, here, here.parent) == "python"
    assert name_python(monkeypatch, spaced, here.parent) == f"'{spaced}'"
    (tmp_path / "work").rmdir()
    assert terminal.name_module("service") == f"'{spaced}' -m service"
