"""Runner of a bulk job: reads and scores several chunks of files at a time, and stores rows."""

import asyncio
import errno
import itertools
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from service.bulk import remote_files, sources
from service.bulk.journal import Row
from service.bulk.remote_files import ObjectRefused, RemoteFile
from service.bulk.scorers import ImageScore, InvalidImages, Scorer, TooLarge
from service.bulk.sources import ImageFile
from service.bulk.tables import OutputError

Result = TypeVar("Result")

CHUNK_IMAGES = 64  # at most
CHUNK_BYTES = 8 * 2**20  # a chunk of at least this size is complete
MAX_FILE_BYTES = 128 * 2**20  # a larger file is not read
OUTSIDE_FOLDER = "_outside"  # for pictures of files outside the working directory


class File(NamedTuple):
    """A file to score, and its position among all files."""

    position: int
    path: ImageFile


class Rows(Protocol):
    """Finished rows, such as a journal."""

    def find_done(self, paths: Collection[str], /) -> set[str]:
        """Return the paths that have a row."""

    def write(self, rows: Iterable[tuple[int, Row]]) -> None:
        """Store rows, each with its position among all files."""


class Folders(NamedTuple):
    """Folders of heatmaps and overlays; None if they are not requested."""

    heatmap: Path | None = None
    overlay: Path | None = None


class BulkRunner:
    """Scores files into rows with `workers` chunks at a time; writes pictures to the folders.

    `report` is called with the number of rows of each chunk.
    """

    def __init__(
        self,
        scorer: Scorer,
        rows: Rows,
        workers: int,
        folders: Folders,
        report: Callable[[int], object],
    ) -> None:
        self._scorer, self._rows, self._workers = scorer, rows, workers
        self._folders, self._report = folders, report
        self._max_images = CHUNK_IMAGES  # of a call of the scorer; lower after TooLarge

    async def run(self, files: Iterator[ImageFile]) -> None:
        """Score every file without a row.

        Raises DomainError if the run cannot continue; finished rows are kept.
        """
        chunks, lock = _split(files), asyncio.Lock()

        async def work() -> None:
            while True:
                async with lock:
                    chunk = await _run_in_daemon(lambda: next(chunks, None))
                if chunk is None:
                    return
                done = self._rows.find_done([str(file.path) for file in chunk])
                rows = await self._score_files(
                    [file for file in chunk if str(file.path) not in done]
                )
                self._rows.write(rows)
                self._report(len(rows))

        tasks = [asyncio.create_task(work()) for _ in range(self._workers)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _score_files(self, files: Sequence[File]) -> list[tuple[int, Row]]:
        read = await _read_files([file.path for file in files])
        images = {at: data for at, data in enumerate(read) if isinstance(data, bytes)}
        outcomes: dict[int, ImageScore | str] = {
            at: data for at, data in enumerate(read) if isinstance(data, str)
        }
        outcomes |= await self._score_images(images)
        return await asyncio.to_thread(
            lambda: [
                (file.position, self._make_row(file.path, outcomes[at]))
                for at, file in enumerate(files)
            ]
        )

    async def _score_images(self, left: dict[int, bytes]) -> dict[int, ImageScore | str]:
        """Return the score of each image, or the reason for none."""
        outcomes: dict[int, ImageScore | str] = {}
        while left:
            some = dict(itertools.islice(left.items(), self._max_images))
            indices = [*some]
            try:
                outcomes |= zip(indices, await self._scorer.score([*some.values()]), strict=True)
                self._max_images = min(CHUNK_IMAGES, self._max_images + 1)
            except InvalidImages as error:
                outcomes |= {indices[at]: text for at, text in error.errors.items()}
            except TooLarge as error:
                if len(some) > 1:
                    self._max_images = max(1, len(some) // 2)
                else:
                    outcomes[indices[0]] = str(error)
            left = {at: image for at, image in left.items() if at not in outcomes}
        return outcomes

    def _make_row(self, path: ImageFile, outcome: ImageScore | str) -> Row:
        if isinstance(outcome, str):
            return Row(str(path), error=outcome)
        row = Row(str(path), *outcome.verdict)
        for picture, folder in self._folders._asdict().items():
            if folder and (data := getattr(outcome, picture)):
                row = _write_picture(row, picture, _choose_place(path, folder), data)
        return row


def _write_picture(row: Row, picture: str, path: Path, data: bytes) -> Row:
    """Write a picture, and return the row with its path; or with the error of a too long name."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return row._replace(error=f"the {picture} cannot be written: {error.strerror}")
        raise OutputError(f"the {picture} {path} cannot be written: {error.strerror}") from None
    return Row(**(row._asdict() | {picture: str(path)}))


def _split(paths: Iterator[ImageFile]) -> Iterator[list[File]]:
    """Split files into chunks of at most `CHUNK_IMAGES` and about `CHUNK_BYTES`."""
    chunk: list[File] = []
    size = 0
    for position, path in enumerate(paths):
        chunk.append(File(position, path))
        with suppress(OSError, ValueError):  # reading the file reports it
            size += sources.measure(path)
        if len(chunk) == CHUNK_IMAGES or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


async def _read_files(files: Sequence[ImageFile]) -> list[bytes | str]:
    """Return the bytes of each file, or the reason for none."""
    found = await _read_remote([file for file in files if isinstance(file, RemoteFile)])
    return await asyncio.to_thread(
        lambda: [_read_file(file) if isinstance(file, Path) else found[file] for file in files]
    )


async def _read_remote(files: Sequence[RemoteFile]) -> dict[ImageFile, bytes | str]:
    """Read files of stores all at once.

    Raises ObjectRefused if none can be read, because the keys may have expired.
    """
    read = await asyncio.gather(*map(_try_to_read, files))
    refused = [each for each in read if isinstance(each, ObjectRefused)]
    if refused and not any(isinstance(each, bytes) for each in read):
        raise ObjectRefused(f"{refused[0]}; check the keys of the store, and rerun to resume")
    return {
        file: f"the file cannot be read: {each}" if isinstance(each, ObjectRefused) else each
        for file, each in zip(files, read, strict=True)
    }


async def _try_to_read(file: RemoteFile) -> bytes | str | ObjectRefused:
    try:
        return await remote_files.read(file, MAX_FILE_BYTES)
    except ObjectRefused as error:
        return error


def _read_file(path: Path) -> bytes | str:
    """Return the bytes of a file, or the reason for none."""
    try:
        if (size := sources.measure(path)) > MAX_FILE_BYTES:
            return f"the file has {size} bytes; the maximum is {MAX_FILE_BYTES}"
        return path.read_bytes()
    except OSError as error:
        return f"the file cannot be read: {error.strerror or error}"
    except ValueError as error:  # the name is invalid
        return f"the file cannot be read: {error}"


def _choose_place(path: ImageFile, folder: Path) -> Path:
    """Return the path of a file's picture: in the folder as the file is in the working directory.

    A file elsewhere keeps its path from the root, or its URL, below `OUTSIDE_FOLDER`.
    """
    if isinstance(path, RemoteFile):
        return folder / OUTSIDE_FOLDER / f"{path.url.replace('://', '/', 1)}.png"
    file = Path(os.path.abspath(path))  # noqa: PTH100 - pathlib follows links or keeps `..`
    here = Path.cwd()
    inside = file.is_relative_to(here)
    relative = file.relative_to(here) if inside else OUTSIDE_FOLDER / file.relative_to(file.anchor)
    return folder / relative.with_name(f"{relative.name}.png")


async def _run_in_daemon(work: Callable[[], Result]) -> Result:
    """Run work in a daemon thread, so that a wait for a pipe does not block the exit."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def resolve(result: Result | None, error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except Exception as raised:  # the waiting task raises it
            error = raised
        with suppress(RuntimeError):  # the loop has ended, and no task waits
            loop.call_soon_threadsafe(resolve, result, error)

    threading.Thread(target=run, daemon=True).start()
    return await done
