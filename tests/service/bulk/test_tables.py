import csv
import json
import os
from pathlib import Path

import pytest

from bundle.errors import InvalidParameter
from service.bulk import tables
from service.bulk.journal import Row
from service.bulk.tables import OutputError

ROWS = [
    Row('a, "b".png', 1.0, 0.25, 0.75, True, "heat/a.png.png"),
    Row("ü.png", 0.0, 1.0, None, None),
    Row("d.png", 0.5, 0.5, 0.75, False, None, "over/d.png.png"),
    Row("e.png", error="the bytes\nare not an image"),
]


def test_csv(tmp_path: Path) -> None:
    tables.write(ROWS, tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_bytes().decode() == (
        "path,score,p_value,threshold,is_anomaly,heatmap,overlay,error\r\n"
        '"a, ""b"".png",1.0,0.25,0.75,true,heat/a.png.png,,\r\n'
        "ü.png,0.0,1.0,,,,,\r\n"
        "d.png,0.5,0.5,0.75,false,,over/d.png.png,\r\n"
        'e.png,,,,,,,"the bytes\nare not an image"\r\n'
    )


@pytest.mark.parametrize("name", ["a\rb.png", "a\nb.png", '"', ",", "=1+1.png"])
def test_a_row_of_csv_is_one_whatever_its_name(tmp_path: Path, name: str) -> None:
    tables.write([Row(name, error="x")], tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="", encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["path"], row["error"]) == (name, "x")


@pytest.mark.parametrize("suffix", tables.WRITERS)
def test_names_that_are_not_utf8_are_escaped(tmp_path: Path, suffix: str) -> None:
    name = os.fsdecode(b"a\xff.png")
    tables.write([Row(name, heatmap=name, overlay=name)], tmp_path / f"scores{suffix}")
    assert b"xff.png" in (tmp_path / f"scores{suffix}").read_bytes()


def test_json_lines(tmp_path: Path) -> None:
    tables.write(ROWS, tmp_path / "scores.jsonl")
    lines = (tmp_path / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    assert [Row(**json.loads(line)) for line in lines] == ROWS


def test_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = ROWS * (tables.BATCH_ROWS // len(ROWS) + 1)  # in two row groups
    tables.write(rows, tmp_path / "scores.parquet")
    table = parquet.read_table(tmp_path / "scores.parquet")
    assert [Row(**row) for row in table.to_pylist()] == rows
    types = ["string", *["double"] * 3, "bool", *["string"] * 3]
    assert [str(each) for each in table.schema.types] == types


def test_a_table_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def rows() -> object:
        yield ROWS[0]
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"scores\.csv cannot be written: .*No space left"):
        tables.write(rows(), tmp_path / "scores.csv")  # type: ignore[arg-type]
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("scores.xlsx", r"choose one of \.csv, \.jsonl, \.parquet"),
        ("gone/scores.csv", "there is no folder"),
        ("old.csv", "exists; remove it"),
    ],
)
def test_a_bad_output_is_refused(tmp_path: Path, name: str, complaint: str) -> None:
    (tmp_path / "old.csv").touch()
    with pytest.raises(InvalidParameter, match=complaint):
        tables.check(tmp_path / name, resumed=False)
    tables.check(tmp_path / "old.csv", resumed=True)
