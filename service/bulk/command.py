"""`python -m service score`: what it is asked for, its progress, and its end."""

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from service import cores
from service.bulk import outputs, sources
from service.bulk.journal import Journal
from service.bulk.run import CHUNK, Bulk
from service.bulk.scorers import Local, Scorer
from service.errors import InvalidParameter
from service.operations import Operations
from service.registry import LoadedModel

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
        """Raise InvalidParameter where there is nothing to score, or no place for the table."""
        if not self.sources and not self.listed:
            raise InvalidParameter("there is nothing to score: name files, folders or patterns, or a --list")
        sources.check(self.sources)
        if self.listed not in (None, "-") and not Path(str(self.listed)).is_file():
            raise InvalidParameter(f"there is no list {self.listed}")
        outputs.check(self.output, resumed=self.partial.exists())

    def files(self) -> Iterator[Path]:
        if self.listed is None:
            yield from sources.files(self.sources)
        elif self.listed == "-":
            yield from sources.files(self.sources, sys.stdin)
        else:
            with Path(self.listed).open(encoding="utf-8", errors="surrogateescape") as lines:
                yield from sources.files(self.sources, lines)

    def count(self) -> int | None:
        """How many files there are; None where that is known only when they have been scored."""
        return None if self.listed == "-" else sum(1 for _ in self.files())


def local(wanted: Wanted, operations: Operations, model: LoadedModel) -> None:
    """Score with a model of this process. Raises ServiceError; what is done is kept."""
    scorer = Local(operations, model, wanted.false_positive_rate, heatmaps=bool(wanted.heatmaps))
    asyncio.run(_score(wanted, scorer, str(model.manifest.version), "this process"))


def remote(wanted: Wanted, url: str, key: str | None) -> None:
    """Score with a model of a running service. Raises ServiceError; what is done is kept."""
    try:
        from service.bulk.remote import Remote, connected, newest
    except ImportError:
        raise InvalidParameter("--url needs httpx2: pip install 'autoencoder-service[bulk]'") from None

    async def score() -> None:
        async with connected(url, key) as client:
            version = await newest(client, wanted.model)
            scorer = Remote(client, wanted.model, version, wanted.false_positive_rate, heatmaps=bool(wanted.heatmaps))
            await _score(wanted, scorer, version, url)

    asyncio.run(score())


async def _score(wanted: Wanted, scorer: Scorer, version: str, where: str) -> None:
    total = wanted.count()
    if total == 0:
        raise InvalidParameter(f"there are no images in {', '.join(wanted.sources) or wanted.listed}")
    same = {"model": wanted.model, "version": version, "false_positive_rate": wanted.false_positive_rate}
    began = time.monotonic()
    with Journal(wanted.partial, same | {"heatmaps": str(wanted.heatmaps), "where": where}) as journal:
        before = journal.count()
        with tqdm(total=total, initial=before, unit="image", desc=f"scoring with {wanted.model}") as bar:
            await Bulk(scorer, journal, AT_ONCE, wanted.heatmaps, bar.update).run(wanted.files())
        took = time.monotonic() - began
        rows = journal.count()
        outputs.write(journal.rows(), wanted.output)
        anomalous, faulty = journal.found()
        journal.remove()
    rate = f"{(rows - before) / took:,.0f} images a second"
    print(f"{wanted.output}: {rows} images, {anomalous} anomalous, {faulty} that cannot be scored; {rate}")
