import pytest

from tests.terminals import TerminalText
from training import progress
from training.data import image_file


def test_a_terminal_shows_a_bar_and_the_log_stays_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, logged = TerminalText(), list[str]()
    monkeypatch.setattr("sys.stderr", terminal)
    assert image_file.map_with_progress(str, [1, 2, 3], "reading", logged.append) == ["1", "2", "3"]
    assert "reading: 100%" in terminal.getvalue()
    assert logged == []


def test_elsewhere_the_log_has_a_line_at_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    logged: list[str] = []
    assert image_file.map_with_progress(str, [1, 2, 3], "reading", logged.append) == ["1", "2", "3"]
    assert capsys.readouterr().err == ""
    assert logged == ["reading: 3 files"]


def test_only_the_first_of_several_processes_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", TerminalText())
    with progress.open_bar(3, "training", "step", shown=False) as bar:
        assert bar.disable


def test_a_run_in_stages_shows_the_time_left_in_all_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal, logged = TerminalText(), list[str]()
    monkeypatch.setattr("sys.stderr", terminal)
    with progress.Stages(
        logged.append, {"decoding": 2, "trials": 6, "fitting": 1, "report": 1}
    ) as log:
        assert _shown(terminal) == "decoding:   0%"
        files = progress.track([1, 2], 2, "reading", "file", log)
        assert [next(files), next(files)] == [1, 2]
        assert _shown(terminal) == "decoding:  10%"
        progress.begin("trials", log)
        assert _shown(terminal) == "trials:  20%"
        log("the trials begin")
        assert list(progress.step_through([1, 2], log)) == [1, 2]
        progress.begin("fitting", log)
        assert image_file.map_with_progress(str, [1, 2], "reading", progress.silence) == ["1", "2"]
        assert _shown(terminal) == "fitting:  80%"
        progress.begin("report", log)
        assert _shown(terminal) == "report:  90%"
    assert _shown(terminal) == "report: 100%"
    assert "left" in terminal.getvalue()
    assert "reading" not in terminal.getvalue()
    assert logged == ["the trials begin"]


def _shown(terminal: TerminalText) -> str:
    """The start of the line that was drawn last."""
    return terminal.getvalue().rstrip("\r\n ").rpartition("\r")[2].partition("|")[0]


def test_a_run_in_stages_shows_no_bar_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    logged: list[str] = []
    with progress.Stages(logged.append, {"decoding": 1, "report": 3}) as log:
        assert image_file.map_with_progress(str, [1, 2], "reading", log) == ["1", "2"]
        progress.begin("report", log)
    assert capsys.readouterr().err == ""
    assert logged == ["reading: 2 files"]
