import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bundle.conformal import Verdict
from service.bulk import remote_files
from service.bulk.journal import Journal, Row
from service.bulk.remote_files import ObjectRefused, RemoteFile
from service.bulk.runner import (
    CHUNK_BYTES,
    CHUNK_IMAGES,
    MAX_FILE_BYTES,
    BulkRunner,
    Folders,
)
from service.bulk.scorers import ImageScore, InvalidImages, TooLarge
from service.bulk.sources import ImageFile
from service.bulk.tables import OutputError
from service.errors import Overloaded


class Lengths:
    """Scores an image by the length of its bytes; `bad` in it is invalid, over `most` too large."""

    def __init__(self, most: int = CHUNK_IMAGES) -> None:
        self.most = most
        self.scored: list[bytes] = []
        self.refused = 0

    async def score(self, images: Sequence[bytes]) -> list[ImageScore]:
        if len(images) > self.most or b"huge" in images:
            self.refused += 1
            raise TooLarge(f"{len(images)} are too much")
        if errors := {index: "it is bad" for index, image in enumerate(images) if b"bad" in image}:
            raise InvalidImages(errors)
        self.scored += images
        verdicts = [Verdict(float(len(image)), 0.5, 9.0, len(image) >= 9) for image in images]
        pairs = zip(verdicts, images, strict=True)
        return [ImageScore(verdict, image, b"over " + image) for verdict, image in pairs]


def write(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{index:04d}.png" for index in range(count)]
    for index, path in enumerate(paths):
        path.write_bytes(b"x" * (index % 11))
    return paths


def score(
    paths: Sequence[ImageFile],
    journal: Path,
    scorer: Lengths,
    at_once: int = 3,
    heatmaps: Path | None = None,
    overlays: Path | None = None,
) -> int:
    reported: list[int] = []
    with Journal(journal, {}) as opened:
        folders = Folders(heatmaps, overlays)
        asyncio.run(BulkRunner(scorer, opened, at_once, folders, reported.append).run(iter(paths)))
    return sum(reported)


def rows(journal: Path) -> list[Row]:
    with Journal(journal, {}) as opened:
        return [*opened.read_rows()]


@pytest.mark.parametrize("at_once", [1, 3])
def test_every_file_has_its_row_in_order(tmp_path: Path, at_once: int) -> None:
    paths = write(tmp_path, 3 * CHUNK_IMAGES + 5)
    assert score(paths, tmp_path / "journal", Lengths(), at_once) == len(paths)
    assert rows(tmp_path / "journal") == [
        Row(str(path), float(index % 11), 0.5, 9.0, index % 11 >= 9)
        for index, path in enumerate(paths)
    ]


@pytest.mark.parametrize("most", [CHUNK_IMAGES, 3, 1])
def test_errors_are_rows_and_disturb_no_others(tmp_path: Path, most: int) -> None:
    paths = write(tmp_path, 10)
    paths[2].write_bytes(b"bad")
    paths[3].write_bytes(b"huge")
    paths[5].unlink()
    paths[6].unlink()
    os.mkfifo(paths[6])
    paths[9].write_bytes(b"bad too")
    score([*paths, tmp_path, Path("a\0b")], tmp_path / "journal", Lengths(most))
    found = {Path(row.path).name: row.error for row in rows(tmp_path / "journal") if row.error}
    assert found == {
        "0002.png": "it is bad",
        "0003.png": "1 are too much",
        "0005.png": "the file cannot be read: No such file or directory",
        "0006.png": "the file cannot be read: it is not a regular file",
        "0009.png": "it is bad",
        tmp_path.name: "the file cannot be read: it is a folder",
        "a\0b": "the file cannot be read: embedded null byte",
    }
    assert [row.score for row in rows(tmp_path / "journal") if not row.error] == [
        0.0,
        1.0,
        4.0,
        7.0,
        8.0,
    ]


def test_a_refused_object_is_an_error_row_if_another_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read(file: RemoteFile, _: int) -> bytes | str:
        if "archived" in file.url:
            raise ObjectRefused(f"{file.url}: 403 Forbidden")
        return b"xyz"

    monkeypatch.setattr(remote_files, "read", read)
    archived, sent = (RemoteFile(f"s3://b/{name}.png", 3) for name in ("archived", "sent"))
    score([archived, sent], tmp_path / "journal", Lengths())
    assert [row.error for row in rows(tmp_path / "journal")] == [
        "the file cannot be read: s3://b/archived.png: 403 Forbidden",
        None,
    ]
    with pytest.raises(ObjectRefused, match="403 Forbidden; check the keys of the store"):
        score([archived], tmp_path / "other", Lengths())


def test_the_largest_accepted_request_is_remembered(tmp_path: Path) -> None:
    paths, scorer = write(tmp_path, 4 * CHUNK_IMAGES), Lengths(most=5)
    score(paths, tmp_path / "journal", scorer, at_once=1)
    assert len(scorer.scored) == len(paths)
    assert scorer.refused < 30


def test_files_with_a_row_are_not_scored_again(tmp_path: Path) -> None:
    paths = write(tmp_path, CHUNK_IMAGES + 20)
    score(paths[10:70], tmp_path / "journal", Lengths())
    again = Lengths()
    assert score([*paths, paths[0]], tmp_path / "journal", again, at_once=1) == 24
    assert len(again.scored) == 24
    assert sorted(row.path for row in rows(tmp_path / "journal")) == [str(path) for path in paths]


def test_an_error_of_no_image_ends_it_and_keeps_the_rows(tmp_path: Path) -> None:
    class Failing(Lengths):
        async def score(self, images: Sequence[bytes]) -> list[ImageScore]:
            if self.scored:
                raise Overloaded("the queue is full", "images")
            return await super().score(images)

    paths = write(tmp_path, 3 * CHUNK_IMAGES)
    with pytest.raises(Overloaded):
        score(paths, tmp_path / "journal", Failing(), at_once=1)
    assert len(rows(tmp_path / "journal")) == CHUNK_IMAGES


def test_large_files_are_not_scored_together_and_huge_ones_not_read(tmp_path: Path) -> None:
    sizes = [*[CHUNK_BYTES // 2] * 4, MAX_FILE_BYTES + 1]
    paths = [tmp_path / f"{index}.png" for index in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        with path.open("wb") as file:
            file.truncate(size)  # sparse
    scorer = Lengths(most=2)
    score(paths, tmp_path / "journal", scorer)
    assert scorer.refused == 0
    assert [row.error for row in rows(tmp_path / "journal")] == [
        *[None] * 4,
        f"the file has {MAX_FILE_BYTES + 1} bytes; the maximum is {MAX_FILE_BYTES}",
    ]


def test_heatmaps_lie_as_their_files_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work" / "photos").mkdir(parents=True)
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    paths = [Path("photos/a.png"), Path("photos/a.jpg"), Path("../else/a.png")]
    for path in paths:
        path.write_bytes(str(path).encode())
    score(paths, tmp_path / "journal", Lengths(), heatmaps=Path("heat"))
    outside = Path("heat/_outside") / (tmp_path / "else" / "a.png.png").relative_to("/")
    expected = [Path("heat/photos/a.png.png"), Path("heat/photos/a.jpg.png"), outside]
    assert [Path(str(row.heatmap)) for row in rows(tmp_path / "journal")] == expected
    assert [path.read_bytes().decode() for path in expected] == [str(path) for path in paths]


def test_overlays_lie_as_heatmaps_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(b"a")
    score([Path("a.png")], tmp_path / "journal", Lengths(), overlays=Path("over"))
    (row,) = rows(tmp_path / "journal")
    assert (row.heatmap, row.overlay) == (None, "over/a.png.png")
    assert Path("over/a.png.png").read_bytes() == b"over a"


def test_a_heatmap_that_can_have_no_name_leaves_the_verdict(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250 + ".png")
    path.write_bytes(b"four")
    score([path], tmp_path / "journal", Lengths(), heatmaps=tmp_path / "heat")
    (row,) = rows(tmp_path / "journal")
    assert (row.score, row.heatmap, row.error) == (
        4.0,
        None,
        "the heatmap cannot be written: File name too long",
    )


def test_the_run_ends_if_no_heatmap_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "heat").write_text("a file")
    with pytest.raises(OutputError, match=r"the heatmap .* cannot be written: Not a directory"):
        score(write(tmp_path, 3), tmp_path / "journal", Lengths(), heatmaps=tmp_path / "heat")


def test_files_that_do_not_come_do_not_prevent_a_cancellation(tmp_path: Path) -> None:
    """A pipe that nobody writes to."""
    waits, forever = threading.Event(), threading.Event()

    def files() -> Iterator[Path]:
        waits.set()
        forever.wait()
        yield tmp_path

    async def end() -> None:
        with Journal(tmp_path / "journal", {}) as opened:
            bulk = BulkRunner(Lengths(), opened, 2, Folders(), lambda _: None)
            task = asyncio.create_task(bulk.run(files()))
            await asyncio.to_thread(waits.wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(end())
    forever.set()
