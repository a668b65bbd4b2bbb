import json
from pathlib import Path

import pytest

from service.bulk import outputs
from service.bulk.journal import Row
from service.errors import InvalidParameter

ROWS = [
    Row('a, "b".png', 1.0, 0.25, 0.75, True, "heat/a.png.png"),
    Row("ü.png", 0.0, 1.0, None, None),
    Row("d.png", 0.5, 0.5, 0.75, False),
    Row("e.png", error="the bytes\nare not an image"),
]


def test_csv(tmp_path: Path) -> None:
    outputs.write(ROWS, tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text(encoding="utf-8") == (
        "path,score,p_value,threshold,is_anomaly,heatmap,error\n"
        '"a, ""b"".png",1.0,0.25,0.75,true,heat/a.png.png,\n'
        "ü.png,0.0,1.0,,,,\n"
        "d.png,0.5,0.5,0.75,false,,\n"
        'e.png,,,,,,"the bytes\nare not an image"\n'
    )


def test_json_lines(tmp_path: Path) -> None:
    outputs.write(ROWS, tmp_path / "scores.jsonl")
    lines = (tmp_path / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    assert [Row(**json.loads(line)) for line in lines] == ROWS


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(outputs, "AT_ONCE", 3)
    outputs.write(ROWS, tmp_path / "scores.parquet")
    table = parquet.read_table(tmp_path / "scores.parquet")
    assert [Row(**row) for row in table.to_pylist()] == ROWS
    assert [str(kind) for kind in table.schema.types] == ["string", *["double"] * 3, "bool", "string", "string"]


def test_a_table_that_cannot_be_written_whole_is_not_there(tmp_path: Path) -> None:
    def rows() -> object:
        yield ROWS[0]
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        outputs.write(rows(), tmp_path / "scores.csv")  # type: ignore[arg-type]
    assert not (tmp_path / "scores.csv").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("scores.xlsx", r"ends in one of \.csv, \.jsonl, \.parquet"),
        ("gone/scores.csv", "there is no folder"),
        ("old.csv", "exists already"),
    ],
)
def test_a_bad_output_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "old.csv").touch()
    with pytest.raises(InvalidParameter, match=said):
        outputs.check(tmp_path / name, resumed=False)
    outputs.check(tmp_path / "old.csv", resumed=True)
