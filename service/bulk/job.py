"""`python -m service score`: its options, its run, and its summary."""

import asyncio
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from bundle.conformal import allows_rate, find_default_rate, find_minimum_rate, format_rate
from bundle.errors import InvalidParameter
from service import cores
from service.bulk import journal, sources, tables
from service.bulk.journal import Journal
from service.bulk.runner import CHUNK_IMAGES, BulkRunner, Folders
from service.bulk.scorers import LocalScorer, Scorer
from service.operations import Operations, Pictures, require_part
from service.registry.registry import ModelRegistry

STDIN = "-"
WORKERS = min(cores.count() + 1, 8)  # some read and decode while another uses the device
# Settings of this process: a job may take a day, and all workers are admitted.
BULK_SETTINGS = {
    "request_timeout": 86_400.0,
    "max_images": CHUNK_IMAGES,
    "max_queued_images": WORKERS * CHUNK_IMAGES,
    "max_share": 1.0,
}


@dataclass(frozen=True)
class ScoreJob:
    """Files to score, the model and its false positive rate, the table and the picture folders.

    `sources` are files, folders and patterns. `listed` is a file of more paths, or `-` for standard
    input. If the rate is None, it is the lowest of `conformal.RATES` that the calibration allows.
    """

    sources: Sequence[str]
    listed: str | None
    model: str
    output: Path
    folders: Folders
    false_positive_rate: float | None

    @property
    def partial(self) -> Path:
        """The journal, until the table is complete."""
        return self.output.with_name(f"{self.output.name}.partial")

    @property
    def pictures(self) -> Pictures:
        """The pictures that have a folder."""
        return Pictures(bool(self.folders.heatmap), bool(self.folders.overlay))

    def check(self) -> None:
        """Raise InvalidParameter if a source is missing, or an output cannot be written."""
        if not self.sources and not self.listed:
            raise InvalidParameter(
                "there is nothing to score; name files, folders or patterns, or a --list"
            )
        sources.check(self.sources)
        if self.listed not in (None, STDIN) and not os.access(str(self.listed), os.R_OK):
            raise InvalidParameter(f"--list {self.listed} cannot be read; name a readable file")
        tables.check(self.output, resumed=self.partial.exists())
        for picture, folder in self.folders._asdict().items():
            if folder:
                _make_folder(folder, f"--{picture}s")
        self._check_folders()

    def _check_folders(self) -> None:
        heatmaps, overlays = self.folders
        if heatmaps and overlays and heatmaps.samefile(overlays):
            raise InvalidParameter(
                f"--heatmaps and --overlays are both {overlays}; choose two folders"
            )

    def choose_rate(self, calibration_images: int) -> float:
        """Return the requested false positive rate, or the default for so many images."""
        rate = self.false_positive_rate
        return find_default_rate(calibration_images) if rate is None else rate

    def find_files(self) -> Iterator[Path]:
        """Find the files of the sources and of the list."""
        yield from sources.find_files(self.sources, omit=[each for each in self.folders if each])
        if self.listed == STDIN:
            yield from sources.read_list(sys.stdin.buffer)
        elif self.listed is not None:
            with Path(self.listed).open("rb") as lines:
                yield from sources.read_list(lines)

    def count_files(self) -> int | None:
        """Count the files; None if the list can be read only once."""
        rereadable = self.listed is None or (self.listed != STDIN and Path(self.listed).is_file())
        return sum(1 for _ in self.find_files()) if rereadable else None

    def describe_run(self, source: str, version: str, rate: float) -> dict[str, object]:
        """Return the facts that all rows of the table share; `source` holds the model."""
        return {
            "model": self.model,
            "version": version,
            "service": source,
            "false-positive-rate": rate,
            "heatmaps": str(self.folders.heatmap),
            "overlays": str(self.folders.overlay),
            "paths": [*self.sources],
            "list": self.listed,
            "working directory": os.getcwd(),  # noqa: PTH109 - as text
        }

    def find_interrupted_version(self, source: str) -> str | None:
        """Return the version of the model in the run to resume; None for a new run."""
        run = journal.read_run(self.partial)
        version, rate = str(run.get("version")), run.get("false-positive-rate")
        if not isinstance(rate, float) or self.false_positive_rate not in (None, rate):
            return None
        return version if run == self.describe_run(source, version, rate) else None


@dataclass(frozen=True)
class ScoringModel:
    """A model that scores at a false positive rate.

    `source` is its models directory or the URL of its service.
    """

    source: str
    version: str
    calibration_images: int
    rate: float


def score_locally(
    job: ScoreJob, operations: Operations, registry: ModelRegistry, models: str
) -> None:
    """Score with a model of this process. Raises DomainError; finished rows are kept."""
    source = models if "://" in models else str(Path(models).resolve())
    loaded = registry.get(job.model, job.find_interrupted_version(source))
    scoring = require_part(loaded, "anomaly-score", loaded.scoring)
    images = len(scoring.conformal.scores)
    model = ScoringModel(source, str(loaded.manifest.version), images, job.choose_rate(images))
    scorer = LocalScorer(operations, loaded, model.rate, job.pictures)
    asyncio.run(_score(job, scorer, model))


def score_remotely(job: ScoreJob, url: str, key: str | None) -> None:
    """Score with a model of a running service. Raises DomainError; finished rows are kept."""
    try:
        from service.bulk.remote_scorer import RemoteScorer, connect, fetch_card
    except ImportError:
        raise InvalidParameter(
            "--url needs the Python client: run pip install '.[bulk]' in the checkout"
        ) from None

    async def score() -> None:
        async with connect(url, key) as client:
            card = await fetch_card(client, job.model, job.find_interrupted_version(url))
            images = card.calibration_images
            model = ScoringModel(url, card.version, images, job.choose_rate(images))
            scorer = RemoteScorer(client, job.model, card.version, model.rate, job.pictures)
            await _score(job, scorer, model)

    asyncio.run(score())


async def _score(job: ScoreJob, scorer: Scorer, model: ScoringModel) -> None:
    total = job.count_files()
    if total == 0:
        raise InvalidParameter(f"there are no images in {', '.join(job.sources) or job.listed}")
    began = time.monotonic()
    run = job.describe_run(model.source, model.version, model.rate)
    with Journal(job.partial, run) as rows:
        resumed = rows.count()
        with tqdm(
            total=total, initial=resumed, unit="image", desc=f"scoring with {job.model}"
        ) as bar:
            await BulkRunner(scorer, rows, WORKERS, job.folders, bar.update).run(job.find_files())
        summary = _summarise(rows, resumed, time.monotonic() - began, model)
        tables.write(rows.read_rows(), job.output)
        rows.remove()
    print(f"{job.output}: {summary}")


def _summarise(rows: Journal, resumed: int, seconds: float, model: ScoringModel) -> str:
    count, (anomalous, errors) = rows.count(), rows.count_outcomes()
    verdicts = f"{_describe_verdicts(model, anomalous)}, {errors} that cannot be scored"
    speed = f"{(count - resumed) / seconds:,.0f} images a second"
    return f"{count} images, {verdicts}; {speed}, false positive rate {format_rate(model.rate)}"


def _describe_verdicts(model: ScoringModel, anomalous: int) -> str:
    """Return the number of anomalous images; or the minimum rate, if the rate is lower."""
    if allows_rate(model.calibration_images, model.rate):
        return f"{anomalous} anomalous"
    least = format_rate(find_minimum_rate(model.calibration_images))
    return f"no verdict: the minimum false_positive_rate is {least}"


def _make_folder(folder: Path, option: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidParameter(
            f"{option} {folder} cannot be made a folder: {error.strerror}"
        ) from None
