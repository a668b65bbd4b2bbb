import json
import os
import sqlite3
from pathlib import Path

import pytest

from service.bulk.journal import Journal, JournalError, Row, read_run

RUN = {"model": "tiny", "version": "1"}
GOOD = Row("a.png", 0.5, 0.25, 0.75, False, "heat/a.png.png")
ANOMALOUS = Row("b.png", 0.9, 0.01, 0.75, True)
OVERLAID = Row("e.png", 0.9, 0.01, 0.75, True, None, "over/e.png.png")
UNSURE = Row("c.png", 0.1, 1.0, None, None)
BAD = Row("d.png", error="no image")


def test_rows_are_read_back_in_the_order_of_the_files(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", RUN) as journal:
        journal.write([(3, BAD), (2, UNSURE)])
        journal.write([(0, GOOD), (1, ANOMALOUS), (4, OVERLAID)])
        assert [*journal.read_rows()] == [GOOD, ANOMALOUS, UNSURE, BAD, OVERLAID]
        assert journal.count() == 5
        assert journal.count_outcomes() == (2, 1)
        assert journal.find_done(["a.png", "x.png"]) == {"a.png"}


def test_a_later_run_finds_earlier_rows_and_writes_nothing_twice(
    tmp_path: Path,
) -> None:
    with Journal(tmp_path / "journal", RUN) as journal:
        journal.write([(0, GOOD)])
    with Journal(tmp_path / "journal", RUN) as journal:
        journal.write([(0, GOOD._replace(score=7.0)), (1, ANOMALOUS)])
        assert [*journal.read_rows()] == [GOOD, ANOMALOUS]
        journal.remove()
    assert [*tmp_path.iterdir()] == []


def test_rows_are_written_all_or_none(tmp_path: Path) -> None:
    def rows() -> object:
        yield 0, GOOD
        raise RuntimeError("killed")

    with Journal(tmp_path / "journal", RUN) as journal:
        with pytest.raises(RuntimeError, match="killed"):
            journal.write(rows())  # type: ignore[arg-type]
        assert journal.count() == 0


def test_a_journal_of_another_run_is_refused_and_kept(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", RUN) as journal:
        journal.write([(0, GOOD)])
    with pytest.raises(
        JournalError, match="an unfinished run with another paths, version; rerun its command"
    ):
        Journal(tmp_path / "journal", RUN | {"version": "2", "paths": ["x"]})
    assert read_run(tmp_path / "journal") == RUN
    with Journal(tmp_path / "journal", RUN) as journal:
        assert journal.count() == 1


def test_a_journal_of_an_earlier_version_is_refused_with_the_fix(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "journal") as rows:
        rows.execute("CREATE TABLE run (text TEXT NOT NULL)")
        verdict = "score REAL, p_value REAL, threshold REAL, is_anomaly INTEGER"
        columns = f"position INTEGER, path BLOB PRIMARY KEY, {verdict}, heatmap BLOB, error TEXT"
        rows.execute(f"CREATE TABLE rows ({columns})")
        rows.execute("INSERT INTO run VALUES (?)", [json.dumps(RUN, sort_keys=True)])
    rows.close()
    with pytest.raises(JournalError, match="of another version of this program; finish it with"):
        Journal(tmp_path / "journal", RUN)


def test_two_runs_never_write_the_same_journal(tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "journal", RUN),
        pytest.raises(JournalError, match="another run writes the same output"),
    ):
        Journal(tmp_path / "journal", RUN)


def test_paths_of_any_bytes_stay_apart(tmp_path: Path) -> None:
    paths = [os.fsdecode(name) for name in (b"x\xff.png", b"x\\xff.png", "xü.png".encode())]
    with Journal(tmp_path / "journal", RUN) as journal:
        journal.write([(at, Row(path, error="none")) for at, path in enumerate(paths)])
        assert [row.path for row in journal.read_rows()] == paths
        assert journal.find_done(paths) == {*paths}


def test_a_journal_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be written"):
        Journal(tmp_path / "gone" / "journal", RUN)
    with Journal(tmp_path / "journal", RUN) as journal:
        journal._rows.execute("PRAGMA query_only=ON")
        with pytest.raises(JournalError, match="cannot be written"):
            journal.write([(0, GOOD)])


def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b"something else" * 100)
    assert read_run(tmp_path / "journal") == {}
    with pytest.raises(JournalError, match="cannot be used: file is not a database; remove it"):
        Journal(tmp_path / "journal", RUN)
    assert (tmp_path / "journal").read_bytes() == b"something else" * 100
