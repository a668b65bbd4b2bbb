"""The rows that are done, in a database beside the output: whatever ends the program leaves whole rows, each once."""

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
    """What an earlier run left is of no use to this one."""


class Row(NamedTuple):
    """What became of a file: a verdict, or the error for which there is none. Paths are as the system names them."""

    path: str
    score: float | None = None
    p_value: float | None = None
    threshold: float | None = None
    is_anomaly: bool | None = None
    heatmap: str | None = None
    overlay: str | None = None
    error: str | None = None


# Of the table, in the order of Row; paths are bytes.
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
    """Used in a `with` statement, by one thread at a time and one process; without a row it leaves no file."""

    def __init__(self, path: Path, run: Mapping[str, object]) -> None:
        """Open what an earlier run left, or begin.

        `run` is what all rows must have in common. Raises JournalError where an earlier one differs in it, or the file
        is in use or something else.
        """
        self._path, self._removed = path, False
        try:
            self._rows = _opened(path)
        except sqlite3.Error as error:
            raise JournalError(f"{path} cannot be written: {error}") from None
        try:
            self._begin(json.dumps(run, sort_keys=True))
        except sqlite3.DatabaseError as error:
            self._rows.close()
            if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
                raise JournalError(
                    f"{path} is in use: another run writes the same output"
                ) from None
            raise JournalError(f"{path} cannot be used: {error}; remove it to begin anew") from None
        except BaseException:
            self._rows.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if not self._removed and self.count() == 0:
            self.remove()
        self._rows.close()

    def count(self) -> int:
        """How many rows are done."""
        (count,) = self._rows.execute("SELECT count(*) FROM rows").fetchone()
        return int(count)

    def found(self) -> tuple[int, int]:
        """How many images are anomalous, and how many have an error."""
        (anomalous, faulty) = self._rows.execute(
            "SELECT total(is_anomaly), count(error) FROM rows"
        ).fetchone()
        return int(anomalous), int(faulty)

    def done(self, paths: Collection[str]) -> set[str]:
        """Those of the paths that have a row."""
        marks, keys = ",".join("?" * len(paths)), map(os.fsencode, paths)
        return {
            os.fsdecode(key)
            for (key,) in self._rows.execute(
                f"SELECT path FROM rows WHERE path IN ({marks})", [*keys]
            )
        }

    def write(self, rows: Iterable[tuple[int, Row]]) -> None:
        """Keep rows, each with its position among all files: all of them or, where the program ends, none.

        Raises JournalError where they cannot be written, as on a full disk.
        """
        kept = [(at, *_as_bytes(row)) for at, row in rows]
        marks = ",".join("?" * len(COLUMNS))
        try:
            self._rows.execute("BEGIN")
            with self._rows:
                self._rows.executemany(f"INSERT OR IGNORE INTO rows VALUES ({marks})", kept)
        except sqlite3.Error as error:
            raise JournalError(f"{self._path} cannot be written: {error}") from None

    def rows(self) -> Iterator[Row]:
        """All rows in the order of the files."""
        for _, *values in self._rows.execute("SELECT * FROM rows ORDER BY position, path"):
            yield _as_text(Row(*values))

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
            columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
            self._rows.execute(f"CREATE TABLE IF NOT EXISTS rows ({columns})")
            self._check_columns()
            earlier = self._rows.execute("SELECT text FROM run").fetchone()
            if earlier is None:
                self._rows.execute("INSERT INTO run VALUES (?)", [run])
            elif earlier[0] != run:
                was, now = json.loads(earlier[0]), json.loads(run)
                others = ", ".join(
                    key for key in sorted({*was, *now}) if was.get(key) != now.get(key)
                )
                raise JournalError(
                    f"{self._path} is of an unfinished run with another {others}: "
                    "give the same command again, remove the file, or choose another output"
                )

    def _check_columns(self) -> None:
        found = [name for _, name, *_ in self._rows.execute("PRAGMA table_info(rows)")]
        if found != [*COLUMNS]:
            raise JournalError(
                f"{self._path} is of an unfinished run of another version of this program: "
                "finish it with that version, remove the file, or choose another output"
            )


def earlier(path: Path) -> dict[str, object]:
    """What all rows of an unfinished run have in common; empty where there is none that can be read."""
    if not path.is_file():
        return {}
    with closing(_opened(path)) as rows, suppress(sqlite3.Error, TypeError, ValueError):
        (text,) = rows.execute("SELECT text FROM run").fetchone()
        run = json.loads(text)
        return run if isinstance(run, dict) else {}
    return {}


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)


def _as_bytes(row: Row) -> tuple[object, ...]:
    """A row as it is stored: paths of any bytes stay apart."""
    key = {"path": os.fsencode(row.path)}
    places = {name: getattr(row, name) for name in ("heatmap", "overlay")}
    keys = {name: place and os.fsencode(place) for name, place in places.items()}
    return tuple((row._asdict() | key | keys).values())


def _as_text(row: Row) -> Row:
    """A row that was stored, as it was given."""
    return row._replace(
        path=os.fsdecode(row.path),
        is_anomaly=None if row.is_anomaly is None else bool(row.is_anomaly),
        heatmap=row.heatmap and os.fsdecode(row.heatmap),
        overlay=row.overlay and os.fsdecode(row.overlay),
    )
