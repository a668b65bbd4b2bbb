import signal
import sys
from collections.abc import Iterator

import pytest

from service import __main__, cli


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """Restore the handler of SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def run(monkeypatch: pytest.MonkeyPatch, command: str) -> int:
    """Run a command that gets SIGTERM."""
    monkeypatch.setattr(sys, "argv", ["service", command])
    monkeypatch.setattr(cli, "main", lambda: signal.raise_signal(signal.SIGTERM))
    return __main__.main()


@pytest.mark.parametrize("command", ["check", "score", "schema"])
def test_a_command_that_sigterm_ends_has_not_succeeded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run(monkeypatch, command) == 143
    assert capsys.readouterr().err == "interrupted\n"


def test_sigterm_is_the_usual_end_of_a_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        run(monkeypatch, "serve")
    assert capsys.readouterr().err == ""
