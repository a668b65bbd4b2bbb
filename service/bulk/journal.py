"""Journal of finished rows, in a database beside the output.

A run that ends at any time leaves complete rows, each once.
"""

import json
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from service.errors import BulkError


class JournalError(BulkError):
    """The journal cannot be read or written, or belongs to another run."""


class Row(NamedTuple):
    """The outcome of a file: a verdict, or the error instead. Paths are as in the file system."""

    path: str
    score: float | None = None
    p_value: float | None = None
    threshold: float | None = None
    is_anomaly: bool | None = None
    heatmap: str | None = None
    overlay: str | None = None
    error: str | None = None


# In the order of Row after the position; paths are bytes, because names can be invalid UTF-8.
COLUMNS = {
    "position": "INTEGER",
    "path": "BLOB PRIMARY KEY",
    "score": "REAL",
    "p_value": "REAL",
    "threshold": "REAL",
    "is_anomaly": "INTEGER",
    "heatmap": "BLOB",
    "overlay": "BLOB",
    "error": "TEXT",
}


class Journal:
    """Finished rows of a run, for a `with` statement; the file is removed if it has no row.

    Only one thread at a time and one process may use it.
    """

    def __init__(self, path: Path, run: Mapping[str, object]) -> None:
        """Open the journal of an interrupted run, or create it.

        `run` holds the facts that all rows share. Raises JournalError if the interrupted run has
        other facts, or the file is in use or not a journal.
        """
        self._path, self._removed = path, False
        try:
            self._rows = _connect(path)
        except sqlite3.Error as error:
            raise JournalError(f"{path} cannot be written: {error}") from None
        try:
            self._begin(json.dumps(run, sort_keys=True))
        except sqlite3.DatabaseError as error:
            self._rows.close()
            raise _build_open_error(path, error) from None
        except BaseException:
            self._rows.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._removed and self.count() == 0:
            self.remove()
        self._rows.close()

    def count(self) -> int:
        """Count the rows."""
        (count,) = self._rows.execute("SELECT count(*) FROM rows").fetchone()
        return int(count)

    def count_outcomes(self) -> tuple[int, int]:
        """Count the anomalous images, and the rows with an error."""
        (anomalous, errors) = self._rows.execute(
            "SELECT total(is_anomaly), count(error) FROM rows"
        ).fetchone()
        return int(anomalous), int(errors)

    def find_done(self, paths: Collection[str]) -> set[str]:
        """Return the paths that have a row."""
        marks, keys = ",".join("?" * len(paths)), map(os.fsencode, paths)
        return {
            os.fsdecode(key)
            for (key,) in self._rows.execute(
                f"SELECT path FROM rows WHERE path IN ({marks})", [*keys]
            )
        }

    def write(self, rows: Iterable[tuple[int, Row]]) -> None:
        """Store rows, each with its position among all files, in one transaction.

        Raises JournalError if they cannot be written, such as on a full disk.
        """
        values = [(position, *_encode_row(row)) for position, row in rows]
        marks = ",".join("?" * len(COLUMNS))
        try:
            self._rows.execute("BEGIN")
            with self._rows:
                self._rows.executemany(f"INSERT OR IGNORE INTO rows VALUES ({marks})", values)
        except sqlite3.Error as error:
            raise JournalError(f"{self._path} cannot be written: {error}") from None

    def read_rows(self) -> Iterator[Row]:
        """Read all rows in the order of the files."""
        for _, *values in self._rows.execute("SELECT * FROM rows ORDER BY position, path"):
            yield _decode_row(Row(*values))

    def remove(self) -> None:
        """Close the journal and delete its file."""
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
            columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
            self._rows.execute(f"CREATE TABLE IF NOT EXISTS rows ({columns})")
            self._check_columns()
            earlier = self._rows.execute("SELECT text FROM run").fetchone()
            if earlier is None:
                self._rows.execute("INSERT INTO run VALUES (?)", [run])
            elif earlier[0] != run:
                raise self._build_mismatch(json.loads(earlier[0]), json.loads(run))

    def _build_mismatch(
        self, earlier: Mapping[str, object], run: Mapping[str, object]
    ) -> JournalError:
        keys = sorted({*earlier, *run})
        others = ", ".join(key for key in keys if earlier.get(key) != run.get(key))
        return JournalError(
            f"{self._path} is of an unfinished run with another {others}; "
            "rerun its command to resume, remove the file, or choose another output"
        )

    def _check_columns(self) -> None:
        found = [name for _, name, *_ in self._rows.execute("PRAGMA table_info(rows)")]
        if found != [*COLUMNS]:
            raise JournalError(
                f"{self._path} is of an unfinished run of another version of this program; "
                "finish it with that version, remove the file, or choose another output"
            )


def read_run(path: Path) -> dict[str, object]:
    """Read the facts that all rows of an interrupted run share; empty without a readable run."""
    if not path.is_file():
        return {}
    with closing(_connect(path)) as rows, suppress(sqlite3.Error, TypeError, ValueError):
        (text,) = rows.execute("SELECT text FROM run").fetchone()
        run = json.loads(text)
        return run if isinstance(run, dict) else {}
    return {}


def _build_open_error(path: Path, error: sqlite3.DatabaseError) -> JournalError:
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return JournalError(
            f"{path} is in use: another run writes the same output; wait for it, or choose another"
        )
    return JournalError(f"{path} cannot be used: {error}; remove it to start again")


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)


def _encode_row(row: Row) -> tuple[object, ...]:
    """Return the values to store; paths as bytes, to keep distinct names distinct."""
    key = {"path": os.fsencode(row.path)}
    paths = {name: getattr(row, name) for name in ("heatmap", "overlay")}
    pictures = {name: path and os.fsencode(path) for name, path in paths.items()}
    return tuple((row._asdict() | key | pictures).values())


def _decode_row(row: Row) -> Row:
    """Return the row of stored values."""
    return row._replace(
        path=os.fsdecode(row.path),
        is_anomaly=None if row.is_anomaly is None else bool(row.is_anomaly),
        heatmap=row.heatmap and os.fsdecode(row.heatmap),
        overlay=row.overlay and os.fsdecode(row.overlay),
    )
