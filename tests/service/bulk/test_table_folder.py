from pathlib import Path

import pytest
from pyarrow import dataset

from bundle.errors import InvalidParameter
from service.bulk.journal import Row
from service.bulk.table_folder import Done, TableFolder
from service.bulk.tables import OutputError

RUN: dict[str, object] = {"model": "tiny", "paths": ["photos"]}
ROWS = [
    Row("a.png", 3.0, 0.01, 2.0, True),
    Row("b\udcff.png", 1.0, 0.5, 2.0, False),
    Row("c.png", error="it is damaged"),
]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "scores"


def begin(output: Path) -> tuple[TableFolder, Done]:
    table = TableFolder(str(output))
    return table, table.begin(RUN)


def test_a_complete_table_has_a_row_for_each_file_and_is_not_written_again(output: Path) -> None:
    table, done = begin(output)
    assert not any(done)
    table.write("first-0.parquet", ROWS[:2])
    table.write("first-1.parquet", ROWS[2:])
    assert table.complete("first", done, 3) == (3, 1, 1)
    rows = dataset.dataset(output).to_table().to_pylist()
    assert [row["path"] for row in rows] == ["a.png", "b\\xff.png", "c.png"]
    assert [row["is_anomaly"] for row in rows] == [True, False, None]
    with pytest.raises(InvalidParameter, match="scores exists; remove it, or choose another"):
        TableFolder(str(output))


def test_an_interrupted_run_keeps_complete_files(output: Path) -> None:
    table, _ = begin(output)
    table.write("first-0.parquet", ROWS[:2])
    content = (output / "first-0.parquet").read_bytes()
    for size in (0, 3, len(content) - 1):
        (output / f"first-{size + 1}.parquet").write_bytes(content[:size])
    again, done = begin(output)
    assert again.read_run() == RUN
    assert done == ({"a.png", "b\\xff.png"}, {"first-0.parquet"})
    assert [path.name for path in output.glob("*.parquet")] == ["first-0.parquet"]
    again.write("second-0.parquet", ROWS[2:])
    assert again.complete("second", done, 3) == (3, 1, 1)


def test_a_file_that_an_interrupted_run_writes_late_is_removed(output: Path) -> None:
    first, _ = begin(output)
    first.write("first-0.parquet", ROWS[:1])
    second, done = begin(output)
    second.write("second-0.parquet", ROWS[1:])
    first.write("first-1.parquet", ROWS[1:2])
    assert second.complete("second", done, 3) == (3, 1, 1)


def test_a_missing_row_is_an_error(output: Path) -> None:
    table, done = begin(output)
    table.write("first-0.parquet", ROWS)
    with pytest.raises(OutputError, match="has 3 rows for 4 files; let no other run"):
        table.complete("first", done, 4)
    assert not (output / "_SUCCESS").exists()


def test_another_run_is_not_resumed(output: Path) -> None:
    table, _ = begin(output)
    with pytest.raises(OutputError, match="of an unfinished run with another model; rerun"):
        table.begin(RUN | {"model": "other"})
    (output / "_run.json").write_text('{"model":')  # a kill left it incomplete
    assert not any(table.begin(RUN))


@pytest.mark.parametrize("name", ["notes.txt", "scores.parquet"])
def test_a_folder_of_something_else_is_refused(output: Path, name: str) -> None:
    output.mkdir()
    assert TableFolder(str(output)).read_run() == {}
    (output / name).touch()
    with pytest.raises(InvalidParameter, match="exists; remove it"):
        TableFolder(str(output))


@pytest.mark.parametrize("url", ["ftp://bucket/scores", "s3://", "/dev/null"])
def test_an_output_that_cannot_be_opened_is_refused(url: str) -> None:
    with pytest.raises(InvalidParameter, match=f"--output {url} cannot be opened: "):
        TableFolder(url)
