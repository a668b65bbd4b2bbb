"""From files to rows: several chunks at a time, each read, scored and written down."""

import asyncio
import errno
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from service.bulk import sources
from service.bulk.journal import Journal, Row
from service.bulk.scorers import Faulty, Found, Scorer, TooMuch
from service.bulk.tables import OutputError

Result = TypeVar("Result")

CHUNK = 64  # images of a chunk at the most
CHUNK_BYTES = 8 * 2**20  # from which on a chunk is not made longer
LARGEST = 128 * 2**20  # bytes of a file, beyond which it is not read
OUTSIDE = "_outside"  # the folder of pictures of files that are not below the working directory


class File(NamedTuple):
    """A file to be scored, and its place among all."""

    position: int
    path: Path


class Folders(NamedTuple):
    """The folders that heatmaps and overlays are written to; None if there are to be none."""

    heatmap: Path | None = None
    overlay: Path | None = None


class Bulk:
    """Scores files into a journal, `at_once` chunks at a time; pictures go to the folders.

    `tell` hears how many rows each chunk brought.
    """

    def __init__(
        self,
        scorer: Scorer,
        journal: Journal,
        at_once: int,
        folders: Folders,
        tell: Callable[[int], object],
    ) -> None:
        self._scorer, self._journal, self._at_once = scorer, journal, at_once
        self._folders, self._tell = folders, tell
        self._most = (
            CHUNK  # images that the scorer is asked of at a time; fewer where that was too much
        )

    async def run(self, files: Iterator[Path]) -> None:
        """Score every file that has no row yet. Raises DomainError where going on is useless; what is done is kept."""
        chunks, turn = _chunks(files), asyncio.Lock()

        async def work() -> None:
            while True:
                async with turn:
                    chunk = await _in_daemon(lambda: next(chunks, None))
                if chunk is None:
                    return
                done = self._journal.done([str(file.path) for file in chunk])
                rows = await self._rows([file for file in chunk if str(file.path) not in done])
                self._journal.write(rows)
                self._tell(len(rows))

        tasks = [asyncio.create_task(work()) for _ in range(self._at_once)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _rows(self, files: Sequence[File]) -> list[tuple[int, Row]]:
        read = await asyncio.to_thread(lambda: [_read(file.path) for file in files])
        images = {at: data for at, data in enumerate(read) if isinstance(data, bytes)}
        outcomes: dict[int, Found | str] = {
            at: data for at, data in enumerate(read) if isinstance(data, str)
        }
        outcomes |= await self._outcomes(images)
        return await asyncio.to_thread(
            lambda: [
                (file.position, self._row(file.path, outcomes[at])) for at, file in enumerate(files)
            ]
        )

    async def _outcomes(self, left: dict[int, bytes]) -> dict[int, Found | str]:
        """What comes of each image: what the scorer found, or what is wrong with it."""
        outcomes: dict[int, Found | str] = {}
        while left:
            some = dict(itertools.islice(left.items(), self._most))
            indices = [*some]
            try:
                outcomes |= zip(indices, await self._scorer.score([*some.values()]), strict=True)
                self._most = min(CHUNK, self._most + 1)
            except Faulty as error:
                outcomes |= {indices[at]: text for at, text in error.errors.items()}
            except TooMuch as error:
                if len(some) > 1:
                    self._most = max(1, len(some) // 2)
                else:
                    outcomes[indices[0]] = str(error)
            left = {at: image for at, image in left.items() if at not in outcomes}
        return outcomes

    def _row(self, path: Path, outcome: Found | str) -> Row:
        if isinstance(outcome, str):
            return Row(str(path), error=outcome)
        row = Row(str(path), *outcome.verdict)
        for picture, folder in self._folders._asdict().items():
            if folder and (data := getattr(outcome, picture)):
                row = _pictured(row, picture, _beside(path, folder), data)
        return row


def _pictured(row: Row, picture: str, place: Path, data: bytes) -> Row:
    """The row with a picture, which is written; or with the error if it can have no name."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return row._replace(error=f"the {picture} cannot be written: {error.strerror}")
        raise OutputError(f"the {picture} {place} cannot be written: {error.strerror}") from None
    return Row(**(row._asdict() | {picture: str(place)}))


def _chunks(paths: Iterator[Path]) -> Iterator[list[File]]:
    """Files that are scored together: few enough, and not too many bytes."""
    chunk: list[File] = []
    size = 0
    for position, path in enumerate(paths):
        chunk.append(File(position, path))
        with suppress(OSError, ValueError):  # which is said when it is read
            size += sources.size(path)
        if len(chunk) == CHUNK or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _read(path: Path) -> bytes | str:
    """The bytes of a file, or why they cannot be had."""
    try:
        if (size := sources.size(path)) > LARGEST:
            return f"the file has {size} bytes; at most {LARGEST} are read"
        return path.read_bytes()
    except OSError as error:
        return f"the file cannot be read: {error.strerror or error}"
    except ValueError as error:  # no file can have such a name
        return f"the file cannot be read: {error}"


def _beside(path: Path, folder: Path) -> Path:
    """The place of a file's picture: below the folder as the file is below the working directory.

    A file elsewhere is placed by its path from the root.
    """
    place = Path(os.path.abspath(path))  # noqa: PTH100 - which would follow links, or leave `..` in it
    here = Path.cwd()
    inside = place.is_relative_to(here)
    relative = place.relative_to(here) if inside else OUTSIDE / place.relative_to(place.anchor)
    return folder / relative.with_name(f"{relative.name}.png")


async def _in_daemon(work: Callable[[], Result]) -> Result:
    """As asyncio.to_thread, in a thread that does not keep the program from ending: it may wait for a pipe."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def give(result: Result | None, error: Exception | None) -> None:
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
        except Exception as raised:  # whatever it is, it is of the one who waits
            error = raised
        with suppress(RuntimeError):  # where the loop has ended nobody waits
            loop.call_soon_threadsafe(give, result, error)

    threading.Thread(target=run, daemon=True).start()
    return await done
