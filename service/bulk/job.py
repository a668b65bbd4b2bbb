"""`python -m service score`: what it is asked for, its progress, and its end."""

import asyncio
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from bundle.conformal import as_text, can_tell, default_rate, minimum_rate
from bundle.errors import InvalidParameter
from service import cores
from service.bulk import journal, sources, tables
from service.bulk.journal import Journal
from service.bulk.runner import CHUNK, Bulk, Folders
from service.bulk.scorers import Local, Scorer
from service.operations import Operations, Pictures, check_supported
from service.registry.registry import ModelRegistry

STDIN = "-"
AT_ONCE = min(
    cores.available() + 1, 8
)  # chunks: some are read and decoded while one is on the device
# Settings of a process that does nothing else: nobody waits for an answer, and all chunks have their place.
BOUNDS = {"request_timeout": 86_400.0, "max_images": CHUNK, "max_queued_images": AT_ONCE * CHUNK}


@dataclass(frozen=True)
class Wanted:
    """The files to score, the model and its rate, and the places of the table and of pictures.

    `sources` are files, folders and patterns; `listed` is a file of more paths, or `-` for standard
    input. Without a rate, the lowest of `anomaly.RATES` is taken that the calibration can tell.
    """

    sources: Sequence[str]
    listed: str | None
    model: str
    output: Path
    folders: Folders
    false_positive_rate: float | None

    @property
    def partial(self) -> Path:
        """The journal, while the table is not whole."""
        return self.output.with_name(f"{self.output.name}.partial")

    @property
    def pictures(self) -> Pictures:
        return Pictures(bool(self.folders.heatmap), bool(self.folders.overlay))

    def check(self) -> None:
        """Raise InvalidParameter where there is nothing to score, or no place for what is found."""
        if not self.sources and not self.listed:
            raise InvalidParameter(
                "there is nothing to score: name files, folders or patterns, or a --list"
            )
        sources.check(self.sources)
        if self.listed not in (None, STDIN) and not os.access(str(self.listed), os.R_OK):
            raise InvalidParameter(f"there is no list {self.listed} that can be read")
        tables.check(self.output, resumed=self.partial.exists())
        for picture, folder in self.folders._asdict().items():
            if folder:
                _make_folder(folder, f"{picture}s")
        self._check_folders()

    def _check_folders(self) -> None:
        heatmaps, overlays = self.folders
        if heatmaps and overlays and heatmaps.samefile(overlays):
            raise InvalidParameter(f"--heatmaps and --overlays are both {overlays}; choose two")

    def rate(self, calibration_images: int) -> float:
        """The rate that was asked for, or the default of a model with so many."""
        asked = self.false_positive_rate
        return default_rate(calibration_images) if asked is None else asked

    def files(self) -> Iterator[Path]:
        yield from sources.files(self.sources, omit=[each for each in self.folders if each])
        if self.listed == STDIN:
            yield from sources.listed(sys.stdin.buffer)
        elif self.listed is not None:
            with Path(self.listed).open("rb") as lines:
                yield from sources.listed(lines)

    def count(self) -> int | None:
        """How many files there are; None where that is known only when they have been scored."""
        again = self.listed is None or (self.listed != STDIN and Path(self.listed).is_file())
        return sum(1 for _ in self.files()) if again else None

    def run(self, where: str, version: str, rate: float) -> dict[str, object]:
        """What all rows of the table must have in common."""
        return {
            "model": self.model,
            "version": version,
            "service": where,
            "false-positive-rate": rate,
            "heatmaps": str(self.folders.heatmap),
            "overlays": str(self.folders.overlay),
            "paths": [*self.sources],
            "list": self.listed,
            "working directory": os.getcwd(),  # noqa: PTH109 - as text
        }

    def version(self, where: str) -> str | None:
        """The version with which an interrupted run began; None where a run begins now."""
        earlier = journal.earlier(self.partial)
        version, rate = str(earlier.get("version")), earlier.get("false-positive-rate")
        if not isinstance(rate, float) or self.false_positive_rate not in (None, rate):
            return None
        return version if earlier == self.run(where, version, rate) else None


@dataclass(frozen=True)
class Target:
    """The model that scores, at a rate: its place, its version, and its calibration's size."""

    where: str
    version: str
    calibration_images: int
    rate: float


def local(wanted: Wanted, operations: Operations, registry: ModelRegistry, models: Path) -> None:
    """Score with a model of this process. Raises DomainError; what is done is kept."""
    where = str(models.resolve())
    model = registry.get(wanted.model, wanted.version(where))
    manifest = model.manifest
    check_supported(manifest.name, "anomaly-score", manifest.capabilities)
    assert manifest.calibration is not None  # which the manifest promises with the capability
    images = len(manifest.calibration.scores)
    target = Target(where, str(manifest.version), images, wanted.rate(images))
    scorer = Local(operations, model, target.rate, wanted.pictures)
    asyncio.run(_score(wanted, scorer, target))


def remote(wanted: Wanted, url: str, key: str | None) -> None:
    """Score with a model of a running service. Raises DomainError; what is done is kept."""
    try:
        from service.bulk.remote_scorer import Remote, card, connected
    except ImportError:
        raise InvalidParameter(
            "--url needs httpx2: pip install 'autoencoder-service[bulk]'"
        ) from None

    async def score() -> None:
        async with connected(url, key) as client:
            version, images = await card(client, wanted.model, wanted.version(url))
            target = Target(url, version, images, wanted.rate(images))
            scorer = Remote(client, wanted.model, version, target.rate, wanted.pictures)
            await _score(wanted, scorer, target)

    asyncio.run(score())


async def _score(wanted: Wanted, scorer: Scorer, target: Target) -> None:
    total = wanted.count()
    if total == 0:
        raise InvalidParameter(
            f"there are no images in {', '.join(wanted.sources) or wanted.listed}"
        )
    began = time.monotonic()
    run = wanted.run(target.where, target.version, target.rate)
    with Journal(wanted.partial, run) as rows:
        before = rows.count()
        with tqdm(
            total=total, initial=before, unit="image", desc=f"scoring with {wanted.model}"
        ) as bar:
            await Bulk(scorer, rows, AT_ONCE, wanted.folders, bar.update).run(wanted.files())
        took = time.monotonic() - began
        count, (anomalous, faulty) = rows.count(), rows.found()
        tables.write(rows.rows(), wanted.output)
        rows.remove()
    speed = f"{(count - before) / took:,.0f} images a second"
    found = f"{_verdicts(target, anomalous)}, {faulty} that cannot be scored"
    rate = f"false positive rate {as_text(target.rate)}"
    print(f"{wanted.output}: {count} images, {found}; {speed}, {rate}")


def _verdicts(target: Target, anomalous: int) -> str:
    """The number of anomalous images; or the minimum rate, if the rate is lower."""
    if can_tell(target.calibration_images, target.rate):
        return f"{anomalous} anomalous"
    least = as_text(minimum_rate(target.calibration_images))
    return f"no verdict: the minimum false_positive_rate is {least}"


def _make_folder(folder: Path, pictures: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidParameter(f"{folder} is no folder for {pictures}: {error.strerror}") from None
