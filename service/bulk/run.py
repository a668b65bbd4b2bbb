"""From files to rows: several chunks at a time, each read, scored and written down."""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from service.bulk import sources
from service.bulk.journal import Journal, Row
from service.bulk.scorers import Faulty, Found, Scorer, TooMuch

CHUNK = 64  # images of a chunk at the most
CHUNK_BYTES = 8 * 2**20  # from which on a chunk is not made longer
LARGEST = 2**30  # bytes of a file, beyond which it is not read


class File(NamedTuple):
    """A file to be scored, and its place among all."""

    position: int
    path: Path
    label: str


@dataclass(frozen=True)
class Bulk:
    """Scores files into a journal, `at_once` chunks at a time; heatmaps go to a folder if there is one.

    `tell` hears how many rows each chunk brought.
    """

    scorer: Scorer
    journal: Journal
    at_once: int
    heatmaps: Path | None
    tell: Callable[[int], object]

    async def run(self, files: Iterator[Path]) -> None:
        """Score every file that has no row yet. Raises ServiceError where going on is useless; what is done is kept."""
        chunks, turn = _chunks(files), asyncio.Lock()

        async def work() -> None:
            while True:
                async with turn:
                    chunk = await asyncio.to_thread(next, chunks, None)
                if chunk is None:
                    return
                done = self.journal.done([file.label for file in chunk])
                rows = await self._rows([file for file in chunk if file.label not in done])
                self.journal.write(rows)
                self.tell(len(rows))

        tasks = [asyncio.create_task(work()) for _ in range(self.at_once)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _rows(self, files: Sequence[File]) -> list[tuple[int, Row]]:
        read = await asyncio.to_thread(lambda: [_read(file.path) for file in files])
        outcomes: list[Found | str] = [""] * len(files)
        images: dict[int, bytes] = {}
        for index, data in enumerate(read):
            if isinstance(data, bytes):
                images[index] = data
            else:
                outcomes[index] = data
        for index, outcome in (await self._outcomes(images)).items():
            outcomes[index] = outcome
        return await asyncio.to_thread(
            lambda: [(file.position, self._row(file, of)) for file, of in zip(files, outcomes, strict=True)]
        )

    async def _outcomes(self, images: Mapping[int, bytes]) -> dict[int, Found | str]:
        """What comes of each image: what the scorer found, or what is wrong with it."""
        if not images:
            return {}
        indices = [*images]
        try:
            return dict(zip(indices, await self.scorer.score([*images.values()]), strict=True))
        except Faulty as error:
            faults: dict[int, Found | str] = {indices[at]: text for at, text in error.errors.items()}
            return faults | await self._outcomes({at: image for at, image in images.items() if at not in faults})
        except TooMuch as error:
            if len(images) == 1:
                return {indices[0]: str(error)}
        half = len(images) // 2
        first, second = indices[:half], indices[half:]
        return await self._outcomes({at: images[at] for at in first}) | await self._outcomes(
            {at: images[at] for at in second}
        )

    def _row(self, file: File, outcome: Found | str) -> Row:
        if isinstance(outcome, str):
            return Row(file.label, error=outcome)
        heatmap = None
        if self.heatmaps and outcome.heatmap:
            heatmap = _beside(file.path, self.heatmaps)
            heatmap.parent.mkdir(parents=True, exist_ok=True)
            heatmap.write_bytes(outcome.heatmap)
        return Row(file.label, *outcome.verdict, heatmap=sources.label(heatmap) if heatmap else None)


def _chunks(paths: Iterator[Path]) -> Iterator[list[File]]:
    """Files that are scored together: few enough, and not too many bytes."""
    chunk: list[File] = []
    size = 0
    for position, path in enumerate(paths):
        chunk.append(File(position, path, sources.label(path)))
        with suppress(OSError):  # which is said when it is read
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


def _beside(path: Path, folder: Path) -> Path:
    """Where the heatmap of a file goes: below the folder as the file is below the working directory, or the root."""
    place = Path(os.path.abspath(path))  # noqa: PTH100 - which would follow links, or leave `..` in it
    here = Path.cwd()
    relative = place.relative_to(here if place.is_relative_to(here) else place.anchor)
    return folder / relative.with_name(f"{relative.name}.png")
