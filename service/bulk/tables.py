"""Tables of rows in a file: CSV, JSON lines or Parquet."""

import csv
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from bundle.errors import InvalidParameter
from service.bulk.journal import Row
from service.bulk.sources import escape
from service.errors import BulkError

BATCH_ROWS = 10_000  # of a row group of Parquet, in memory at once


class OutputError(BulkError):
    """The table or a picture cannot be written."""


def check(path: Path, *, resumed: bool) -> None:
    """Raise InvalidParameter if a table cannot be written to the path.

    Only a resumed run may overwrite a file.
    """
    if path.suffix.lower() not in WRITERS:
        raise InvalidParameter(
            f"--output {path} has another suffix; choose one of {', '.join(WRITERS)}"
        )
    if not path.parent.is_dir():
        raise InvalidParameter(f"--output {path}: there is no folder {path.parent}; make it first")
    if path.exists() and not resumed:
        raise InvalidParameter(f"--output {path} exists; remove it, or choose another output")
    if path.suffix.lower() == ".parquet":
        _import_pyarrow()


def write(rows: Iterable[Row], path: Path) -> None:
    """Write all rows, or leave no file. Raises OutputError if they cannot be written."""
    partial = path.with_name(f".{path.name}.writing")
    try:
        WRITERS[path.suffix.lower()]((escape_paths(row) for row in rows), partial)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}") from None
    finally:
        partial.unlink(missing_ok=True)


def escape_paths(row: Row) -> Row:
    """Return the row with paths that are UTF-8."""
    return row._replace(
        path=escape(row.path),
        heatmap=row.heatmap and escape(row.heatmap),
        overlay=row.overlay and escape(row.overlay),
    )


def _write_csv(rows: Iterable[Row], path: Path) -> None:
    """Write CSV (RFC 4180): empty for None, `true` and `false` for verdicts."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(Row._fields)
        writer.writerows(
            [str(each).lower() if isinstance(each, bool) else each for each in row] for row in rows
        )


def _write_json_lines(rows: Iterable[Row], path: Path) -> None:
    with path.open("wb") as stream:
        stream.writelines(
            orjson.dumps(row._asdict(), option=orjson.OPT_APPEND_NEWLINE) for row in rows
        )


def build_batch(rows: Iterable[Row]) -> Any:
    """Return rows as a table of pyarrow."""
    pyarrow, _ = _import_pyarrow()
    text, number, truth = pyarrow.string(), pyarrow.float64(), pyarrow.bool_()
    types = {"score": number, "p_value": number, "threshold": number, "is_anomaly": truth}
    schema = pyarrow.schema([(name, types.get(name, text)) for name in Row._fields])
    return pyarrow.Table.from_pylist([row._asdict() for row in rows], schema)


def _write_parquet(rows: Iterable[Row], path: Path) -> None:
    remaining = iter(rows)
    with _import_pyarrow()[1].ParquetWriter(path, build_batch([]).schema) as writer:
        while some := list(itertools.islice(remaining, BATCH_ROWS)):
            writer.write_table(build_batch(some))


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InvalidParameter(
            "Parquet needs pyarrow: run pip install '.[bulk]' in the checkout"
        ) from None
    return pyarrow, pyarrow.parquet


WRITERS: Mapping[str, Callable[[Iterable[Row], Path], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_json_lines,
    ".parquet": _write_parquet,
}
