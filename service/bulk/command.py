"""`python -m service score`: what it is asked for, its progress, and its end."""

import asyncio
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from service import cores
from service.bulk import journal, outputs, sources
from service.bulk.journal import Journal
from service.bulk.run import CHUNK, Bulk
from service.bulk.scorers import Local, Scorer
from service.errors import InvalidParameter
from service.operations import Operations
from service.registry import ModelRegistry

STDIN = "-"
AT_ONCE = min(cores.available() + 1, 8)  # chunks: some are read and decoded while one is on the device
# Settings of a process that does nothing else: nobody waits for an answer, and all chunks have their place.
BOUNDS = {"request_timeout": 86_400.0, "max_images": CHUNK, "max_queued_images": AT_ONCE * CHUNK}


@dataclass(frozen=True)
class Wanted:
    """Which files are scored, by which model at which rate, and where the table and the heatmaps go.

    `sources` are files, folders and patterns; `listed` is a file of more paths, or `-` for standard input.
    """

    sources: Sequence[str]
    listed: str | None
    model: str
    output: Path
    heatmaps: Path | None
    false_positive_rate: float

    @property
    def partial(self) -> Path:
        """The journal, while the table is not whole."""
        return self.output.with_name(f"{self.output.name}.partial")

    def check(self) -> None:
        """Raise InvalidParameter where there is nothing to score, or no place for what is found."""
        if not self.sources and not self.listed:
            raise InvalidParameter("there is nothing to score: name files, folders or patterns, or a --list")
        sources.check(self.sources)
        if self.listed not in (None, STDIN) and not os.access(str(self.listed), os.R_OK):
            raise InvalidParameter(f"there is no list {self.listed} that can be read")
        outputs.check(self.output, resumed=self.partial.exists())
        if self.heatmaps:
            try:
                self.heatmaps.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InvalidParameter(f"{self.heatmaps} is no folder for heatmaps: {error.strerror}") from None

    def files(self) -> Iterator[Path]:
        yield from sources.files(self.sources, omit=self.heatmaps)
        if self.listed == STDIN:
            yield from sources.listed(sys.stdin.buffer)
        elif self.listed is not None:
            with Path(self.listed).open("rb") as lines:
                yield from sources.listed(lines)

    def count(self) -> int | None:
        """How many files there are; None where that is known only when they have been scored."""
        again = self.listed is None or (self.listed != STDIN and Path(self.listed).is_file())
        return sum(1 for _ in self.files()) if again else None

    def run(self, where: str, version: str) -> dict[str, object]:
        """What all rows of the table must have in common."""
        return {
            "model": self.model,
            "version": version,
            "service": where,
            "false-positive-rate": self.false_positive_rate,
            "heatmaps": str(self.heatmaps),
            "paths": [*self.sources],
            "list": self.listed,
            "working directory": os.getcwd(),  # noqa: PTH109 - as text
        }

    def version(self, where: str) -> str | None:
        """The version with which an interrupted run began; None where a run begins now."""
        earlier = journal.earlier(self.partial)
        version = str(earlier.get("version"))
        return version if earlier == self.run(where, version) else None


def local(wanted: Wanted, operations: Operations, registry: ModelRegistry, models: Path) -> None:
    """Score with a model of this process. Raises ServiceError; what is done is kept."""
    where = str(models.resolve())
    model = registry.get(wanted.model, wanted.version(where))
    scorer = Local(operations, model, wanted.false_positive_rate, heatmaps=bool(wanted.heatmaps))
    asyncio.run(_score(wanted, scorer, wanted.run(where, str(model.manifest.version))))


def remote(wanted: Wanted, url: str, key: str | None) -> None:
    """Score with a model of a running service. Raises ServiceError; what is done is kept."""
    try:
        from service.bulk.remote import Remote, connected, newest
    except ImportError:
        raise InvalidParameter("--url needs httpx2: pip install 'autoencoder-service[bulk]'") from None

    async def score() -> None:
        async with connected(url, key) as client:
            version = wanted.version(url) or await newest(client, wanted.model)
            scorer = Remote(client, wanted.model, version, wanted.false_positive_rate, heatmaps=bool(wanted.heatmaps))
            await _score(wanted, scorer, wanted.run(url, version))

    asyncio.run(score())


async def _score(wanted: Wanted, scorer: Scorer, run: Mapping[str, object]) -> None:
    total = wanted.count()
    if total == 0:
        raise InvalidParameter(f"there are no images in {', '.join(wanted.sources) or wanted.listed}")
    began = time.monotonic()
    with Journal(wanted.partial, run) as rows:
        before = rows.count()
        with tqdm(total=total, initial=before, unit="image", desc=f"scoring with {wanted.model}") as bar:
            await Bulk(scorer, rows, AT_ONCE, wanted.heatmaps, bar.update).run(wanted.files())
        took = time.monotonic() - began
        count, (anomalous, faulty) = rows.count(), rows.found()
        outputs.write(rows.rows(), wanted.output)
        rows.remove()
    rate = f"{(count - before) / took:,.0f} images a second"
    print(f"{wanted.output}: {count} images, {anomalous} anomalous, {faulty} that cannot be scored; {rate}")
