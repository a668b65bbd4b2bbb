"""Rows to a table in a file: CSV, JSON lines or Parquet."""

import csv
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from bundle.errors import InvalidParameter
from service.bulk.journal import Row
from service.bulk.sources import label
from service.errors import BulkError

AT_ONCE = 10_000  # rows of a Parquet file's group, and of memory


class OutputError(BulkError):
    """What was found cannot be written."""


def check(path: Path, *, resumed: bool) -> None:
    """Raise InvalidParameter where rows cannot be written to such a file; one that is there is of a resumed run."""
    if path.suffix.lower() not in WRITERS:
        raise InvalidParameter(f"{path}: the output ends in one of {', '.join(WRITERS)}")
    if not path.parent.is_dir():
        raise InvalidParameter(f"{path}: there is no folder {path.parent}")
    if path.exists() and not resumed:
        raise InvalidParameter(f"{path} exists already; remove it, or choose another output")
    if path.suffix.lower() == ".parquet":
        _pyarrow()


def write(rows: Iterable[Row], path: Path) -> None:
    """Write all rows, or leave no file. Raises DomainError where it cannot be written."""
    partial = path.with_name(f".{path.name}.writing")
    try:
        WRITERS[path.suffix.lower()]((_as_text(row) for row in rows), partial)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}") from None
    finally:
        partial.unlink(missing_ok=True)


def _as_text(row: Row) -> Row:
    return row._replace(
        path=label(row.path),
        heatmap=row.heatmap and label(row.heatmap),
        overlay=row.overlay and label(row.overlay),
    )


def _csv(rows: Iterable[Row], path: Path) -> None:
    """As RFC 4180 has it; empty where there is no value, `true` and `false` for verdicts."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(Row._fields)
        writer.writerows(
            [str(each).lower() if isinstance(each, bool) else each for each in row] for row in rows
        )


def _json_lines(rows: Iterable[Row], path: Path) -> None:
    with path.open("wb") as stream:
        stream.writelines(
            orjson.dumps(row._asdict(), option=orjson.OPT_APPEND_NEWLINE) for row in rows
        )


def _parquet(rows: Iterable[Row], path: Path) -> None:
    pyarrow, parquet = _pyarrow()
    text, number, truth = pyarrow.string(), pyarrow.float64(), pyarrow.bool_()
    kinds = {"score": number, "p_value": number, "threshold": number, "is_anomaly": truth}
    schema = pyarrow.schema([(name, kinds.get(name, text)) for name in Row._fields])
    remaining = iter(rows)
    with parquet.ParquetWriter(path, schema) as writer:
        while some := list(itertools.islice(remaining, AT_ONCE)):
            writer.write_table(pyarrow.Table.from_pylist([row._asdict() for row in some], schema))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InvalidParameter(
            "Parquet needs pyarrow: pip install 'autoencoder-service[bulk]'"
        ) from None
    return pyarrow, pyarrow.parquet


WRITERS: Mapping[str, Callable[[Iterable[Row], Path], None]] = {
    ".csv": _csv,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
