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
    table.write(0, ROWS[:2])
    table.write(1, ROWS[2:])
    assert table.complete(done, 3) == (3, 1, 1)
    rows = dataset.dataset(output).to_table().to_pylist()
    assert [row["path"] for row in rows] == ["a.png", "b\\xff.png", "c.png"]
    assert [row["is_anomaly"] for row in rows] == [True, False, None]
    with pytest.raises(InvalidParameter, match="scores exists; remove it, or choose another"):
        TableFolder(str(output))


def test_an_interrupted_run_keeps_complete_files(output: Path) -> None:
    table, _ = begin(output)
    table.write(0, ROWS[:2])
    [first] = output.glob("*.parquet")
    content = first.read_bytes()
    for size in (0, 3, len(content) - 1):
        (output / f"first-{size + 1}.parquet").write_bytes(content[:size])
    again, done = begin(output)
    assert again.read_run() == RUN
    assert done == ({"a.png", "b\\xff.png"}, {first.name})
    assert [*output.glob("*.parquet")] == [first]
    again.write(0, ROWS[2:])
    assert again.complete(done, 3) == (3, 1, 1)


def test_a_file_that_an_interrupted_run_writes_late_is_removed(output: Path) -> None:
    first, _ = begin(output)
    first.write(0, ROWS[:1])
    second, done = begin(output)
    second.write(0, ROWS[1:])
    late = next(output.glob("*.parquet")).read_bytes()
    (output / "first-000001.parquet").write_bytes(late)  # which was begun before
    assert second.complete(done, 3) == (3, 1, 1)
    assert not (output / "first-000001.parquet").exists()


def test_a_run_that_was_thought_dead_leaves_the_files_of_the_next(output: Path) -> None:
    first, none = begin(output)
    first.write(0, ROWS[:1])
    second, done = begin(output)
    with pytest.raises(
        OutputError, match=r"another run writes .*scores, or has completed it; wait"
    ):
        first.write(1, ROWS[1:])
    second.write(0, ROWS[1:])
    with pytest.raises(OutputError, match="another run writes"):
        first.complete(none, 3)
    assert second.complete(done, 3) == (3, 1, 1)


def test_a_run_does_not_touch_a_table_that_another_has_completed(output: Path) -> None:
    first, _ = begin(output)
    late = TableFolder(str(output))
    first.write(0, ROWS)
    second, _ = begin(output)
    (output / "_SUCCESS").touch()
    files = sorted(output.glob("*.parquet"))
    with pytest.raises(OutputError, match="has completed it"):
        second.complete(Done(set(), set()), 3)
    with pytest.raises(OutputError, match="has completed it"):
        late.begin(RUN)
    assert sorted(output.glob("*.parquet")) == files


@pytest.mark.parametrize(("images", "fix"), [(4, "rerun"), (2, "remove the folder")])
def test_a_missing_or_doubled_row_is_an_error(output: Path, images: int, fix: str) -> None:
    table, done = begin(output)
    table.write(0, ROWS)
    message = f"has 3 rows for {images} files; let no other run write it, and {fix}$"
    with pytest.raises(OutputError, match=message):
        table.complete(done, images)
    assert not (output / "_SUCCESS").exists()


def test_another_run_is_not_resumed(output: Path) -> None:
    table, _ = begin(output)
    with pytest.raises(OutputError, match="of an unfinished run with another model; rerun"):
        table.begin(RUN | {"model": "other"})


@pytest.mark.parametrize("text", ['{"model":', "", "[]"])
def test_damaged_facts_are_replaced_only_if_there_is_no_row(output: Path, text: str) -> None:
    table, _ = begin(output)
    (output / "_run.json").write_text(text)
    assert not any(table.begin(RUN))
    assert table.read_run() == RUN
    table.write(0, ROWS)
    (output / "_run.json").write_text(text)
    with pytest.raises(OutputError, match=r"_run\.json is damaged.*; remove the folder, or"):
        TableFolder(str(output)).begin(RUN)
    assert len([*output.glob("*.parquet")]) == 1


def test_a_resumed_run_does_not_write_the_facts_again(output: Path) -> None:
    begin(output)
    facts = output / "_run.json"
    facts.write_text(f"{facts.read_text()} ")
    begin(output)
    assert facts.read_text().endswith(" ")


def test_a_folder_that_cannot_be_written_is_an_error(output: Path) -> None:
    table = TableFolder(str(output))
    output.touch()
    with pytest.raises(OutputError, match=r"scores cannot be read or written: .*; rerun to resume"):
        table.begin(RUN)


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


@pytest.mark.parametrize("url", ["s3://KEY:SECRET@bucket/scores", "s3://KEY:SEC/RET@bucket"])
def test_a_key_in_the_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(InvalidParameter, match="--output holds a key; variables") as refused:
        TableFolder(url)
    assert "SEC" not in str(refused.value).replace("AWS_SECRET_ACCESS_KEY", "")
