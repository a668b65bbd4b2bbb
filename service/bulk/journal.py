"""The rows that are done, in a database beside the output: whatever ends the program leaves whole rows, each once."""

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from service.errors import ServiceError


class JournalError(ServiceError):
    """What an earlier run left is of no use to this one."""


class Row(NamedTuple):
    """What became of a file: a verdict, or the error for which there is none."""

    path: str
    score: float | None = None
    p_value: float | None = None
    threshold: float | None = None
    is_anomaly: bool | None = None
    heatmap: str | None = None
    error: str | None = None


class Journal:
    """Used in a `with` statement, by one thread at a time and one process; without a row it leaves no file."""

    def __init__(self, path: Path, run: Mapping[str, object]) -> None:
        """Open what an earlier run left, or begin.

        `run` is what all rows must have in common. Raises JournalError where an earlier one differs in it, or the file
        is in use or something else.
        """
        self._path, self._removed = path, False
        self._rows = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            self._begin(json.dumps(run, sort_keys=True))
        except sqlite3.DatabaseError as error:
            self._rows.close()
            if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
                raise JournalError(f"{path} is in use: another run writes the same output") from None
            raise JournalError(f"{path} cannot be used: {error}; remove it to begin anew") from None
        except BaseException:
            self._rows.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self._removed and self.count() == 0:
            self.remove()
        self._rows.close()

    def count(self) -> int:
        """How many rows are done."""
        (count,) = self._rows.execute("SELECT count(*) FROM rows").fetchone()
        return int(count)

    def found(self) -> tuple[int, int]:
        """How many images are anomalous, and how many have an error."""
        (anomalous, faulty) = self._rows.execute("SELECT total(is_anomaly), count(error) FROM rows").fetchone()
        return int(anomalous), int(faulty)

    def done(self, paths: Collection[str]) -> set[str]:
        """Those of the paths that have a row."""
        marks = ",".join("?" * len(paths))
        return {path for (path,) in self._rows.execute(f"SELECT path FROM rows WHERE path IN ({marks})", [*paths])}

    def write(self, rows: Iterable[tuple[int, Row]]) -> None:
        """Keep rows, each with its position among all files: all of them or, where the program ends, none."""
        self._rows.execute("BEGIN")
        with self._rows:
            self._rows.executemany(
                "INSERT OR IGNORE INTO rows VALUES (?,?,?,?,?,?,?,?)", [(at, *row) for at, row in rows]
            )

    def rows(self) -> Iterator[Row]:
        """All rows in the order of the files."""
        for _, path, score, p_value, threshold, is_anomaly, heatmap, error in self._rows.execute(
            "SELECT * FROM rows ORDER BY position, path"
        ):
            verdict = None if is_anomaly is None else bool(is_anomaly)
            yield Row(path, score, p_value, threshold, verdict, heatmap, error)

    def remove(self) -> None:
        """Close it and leave nothing of it."""
        self._removed = True
        self._rows.close()
        self._path.unlink()

    def _begin(self, run: str) -> None:
        self._rows.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._rows.execute("PRAGMA journal_mode=WAL")
        self._rows.execute("PRAGMA synchronous=NORMAL")
        self._rows.execute("BEGIN EXCLUSIVE")
        with self._rows:
            self._rows.execute("CREATE TABLE IF NOT EXISTS run (text TEXT NOT NULL)")
            columns = "score REAL, p_value REAL, threshold REAL, is_anomaly INTEGER, heatmap TEXT, error TEXT"
            self._rows.execute(f"CREATE TABLE IF NOT EXISTS rows (position INTEGER, path TEXT PRIMARY KEY, {columns})")
            earlier = self._rows.execute("SELECT text FROM run").fetchone()
            if earlier is None:
                self._rows.execute("INSERT INTO run VALUES (?)", [run])
            elif earlier[0] != run:
                raise JournalError(
                    f"{self._path} is of an unfinished run with {earlier[0]}, and this one has {run}: "
                    "finish that, remove the file, or choose another output"
                )
