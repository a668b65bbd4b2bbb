"""`python -m service score`: its options, its run, and its summary."""

import asyncio
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from bundle.conformal import allows_rate, find_default_rate, find_minimum_rate, format_rate
from bundle.errors import InvalidParameter
from bundle.manifest import hash_bytes
from service import cores
from service.bulk import journal, sources, tables
from service.bulk.journal import Journal
from service.bulk.remote_files import is_url
from service.bulk.runner import CHUNK_IMAGES, BulkRunner, Folders
from service.bulk.scorers import LocalScorer, Scorer
from service.bulk.sources import ImageFile
from service.operations import Operations, Pictures, require_part
from service.registry.registry import ModelRegistry
from service.registry.served_model import ServedModel

STDIN = "-"
WORKERS = min(cores.count() + 1, 8)  # some read and decode while another uses the device


def build_settings(workers: int, model: str) -> dict[str, object]:
    """Return the settings of a process that scores with so many workers.

    A job may take a day, and all workers are admitted. The model is opened at the start, so that a
    damaged version does not serve.
    """
    return {
        "preload": (model,),
        "request_timeout": 86_400.0,
        "max_images": CHUNK_IMAGES,
        "max_queued_images": workers * CHUNK_IMAGES,
        "max_share": 1.0,
    }


@dataclass(frozen=True)
class Shard:
    """Shard `index` of `count`: the files whose paths have its number as hash."""

    index: int
    count: int

    def has(self, path: object) -> bool:
        """Return True if the file belongs to this shard, whatever other files there are."""
        digest = hash_bytes(os.fsencode(str(path)))
        return int(digest, 16) % self.count == self.index

    def name_output(self, output: Path) -> Path:
        """Return the name of this shard's table, such as `scores-00003-of-00016.csv`."""
        return output.with_stem(f"{output.stem}-{self.index:05}-of-{self.count:05}")


@dataclass(frozen=True)
class ScoringModel:
    """A model that scores at a false positive rate.

    `source` is its models directory or the URL of its service.
    """

    source: str
    version: str
    calibration_images: int
    rate: float


@dataclass(frozen=True)
class Summary:
    """Summary of a table by its model; `speed` is in images a second."""

    name: str
    model: ScoringModel
    images: int
    anomalous: int
    errors: int
    speed: float

    def __str__(self) -> str:
        rate = format_rate(self.model.rate)
        return (
            f"{self.images} images, {self._describe_verdicts()}, {self.errors} that cannot be "
            f"scored; {self.speed:,.0f} images a second, false positive rate {rate}"
        )

    def as_document(self) -> dict[str, object]:
        """Return the facts as JSON has them; without verdicts, `anomalous` is None."""
        return {
            "model": self.name,
            "version": self.model.version,
            "images": self.images,
            "anomalous": self.anomalous if self._has_verdicts else None,
            "errors": self.errors,
            "images_per_second": self.speed,
            "false_positive_rate": self.model.rate,
            "minimum_false_positive_rate": find_minimum_rate(self.model.calibration_images),
        }

    @property
    def _has_verdicts(self) -> bool:
        return allows_rate(self.model.calibration_images, self.model.rate)

    def _describe_verdicts(self) -> str:
        """Return the number of anomalous images; or the minimum rate, if the rate is lower."""
        if self._has_verdicts:
            return f"{self.anomalous} anomalous"
        least = format_rate(find_minimum_rate(self.model.calibration_images))
        return f"no verdict: the minimum false_positive_rate is {least}"


@dataclass(frozen=True)
class Request:
    """Files to score, or a shard of them, the model and its false positive rate.

    `sources` are files, folders, patterns and URLs. `listed` is a file of more paths, or `-` for
    standard input. If the rate is None, it is the lowest of `conformal.RATES` that the calibration
    allows.
    """

    sources: Sequence[str]
    listed: str | None
    model: str
    false_positive_rate: float | None
    shard: Shard | None = None

    def check(self) -> None:
        """Raise InvalidParameter if a source is missing."""
        if not self.sources and not self.listed:
            raise InvalidParameter(
                "there is nothing to score; name files, folders or patterns, or a --list"
            )
        sources.check(self.sources)
        if self.listed not in (None, STDIN) and not os.access(str(self.listed), os.R_OK):
            raise InvalidParameter(f"--list {self.listed} cannot be read; name a readable file")

    def find_files(self, omit: Sequence[Path] = ()) -> Iterator[ImageFile]:
        """Find the files of the sources, but in the folders to `omit`, and of the list."""
        for file in self._find_all(omit):
            if self.shard is None or self.shard.has(file):
                yield file

    def count_files(self, omit: Sequence[Path]) -> int | None:
        """Count the files; None if the list can be read only once."""
        rereadable = self.listed is None or (self.listed != STDIN and Path(self.listed).is_file())
        return sum(1 for _ in self.find_files(omit)) if rereadable else None

    def build_empty_error(self) -> InvalidParameter:
        """Return the error of sources without an image."""
        return InvalidParameter(f"there are no images in {', '.join(self.sources) or self.listed}")

    def find_interrupted_version(self, run: Mapping[str, object], source: str) -> str | None:
        """Return the version of the model in the run to resume; None for a new run."""
        version, rate = str(run.get("version")), run.get("false-positive-rate")
        if not isinstance(rate, float) or self.false_positive_rate not in (None, rate):
            return None
        model = ScoringModel(source, version, 0, rate)
        return version if run.items() >= self.describe_run(model).items() else None

    def choose_model(self, source: str, version: str, calibration_images: int) -> ScoringModel:
        """Return the model at the requested rate, or the default for so many images."""
        rate = self.false_positive_rate
        rate = find_default_rate(calibration_images) if rate is None else rate
        return ScoringModel(source, version, calibration_images, rate)

    def choose_loaded(self, loaded: ServedModel, source: str) -> ScoringModel:
        """Return a model of this process. Raises OperationNotSupported if it cannot score."""
        scoring = require_part(loaded, "anomaly-score", loaded.scoring)
        version, images = str(loaded.manifest.version), len(scoring.conformal.scores)
        return self.choose_model(source, version, images)

    def describe_run(self, model: ScoringModel) -> dict[str, object]:
        """Return the facts that all rows of the table share; `source` holds the model."""
        facts = {
            "model": self.model,
            "version": model.version,
            "service": model.source,
            "false-positive-rate": model.rate,
            "paths": [*self.sources],
            "list": self.listed,
        }
        absolute = all(is_url(path) or os.path.isabs(path) for path in self.sources)  # noqa: PTH117
        return facts if absolute and self.listed is None else facts | describe_directory()

    def _find_all(self, omit: Sequence[Path]) -> Iterator[ImageFile]:
        yield from sources.find_files(self.sources, omit)
        if self.listed == STDIN:
            yield from sources.read_list(sys.stdin.buffer)
        elif self.listed is not None:
            with Path(self.listed).open("rb") as lines:
                yield from sources.read_list(lines)


@dataclass(frozen=True)
class ScoreJob:
    """A request, its table and its picture folders."""

    request: Request
    output: Path
    folders: Folders

    @property
    def partial(self) -> Path:
        """The journal, until the table is complete."""
        return self.output.with_name(f"{self.output.name}.partial")

    @property
    def is_complete_shard(self) -> bool:
        """True if this is a shard whose table is complete; schedulers may start it again."""
        return bool(self.request.shard) and self.output.exists() and not self.partial.exists()

    @property
    def pictures(self) -> Pictures:
        """The pictures that have a folder."""
        return Pictures(bool(self.folders.heatmap), bool(self.folders.overlay))

    @property
    def omitted(self) -> list[Path]:
        """The folders whose files are results."""
        return [folder for folder in self.folders if folder]

    def check(self) -> None:
        """Raise InvalidParameter if a source is missing, or an output cannot be written."""
        self.request.check()
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

    def describe_run(self, model: ScoringModel) -> dict[str, object]:
        """Return the facts that all rows of the table share."""
        pictures = {f"{name}s": str(folder) for name, folder in self.folders._asdict().items()}
        # Paths of pictures are relative to the directory.
        return self.request.describe_run(model) | pictures | describe_directory()

    def find_interrupted_version(self, source: str) -> str | None:
        """Return the version of the model in the run to resume; None for a new run."""
        return self.request.find_interrupted_version(journal.read_run(self.partial), source)


def describe_directory() -> dict[str, object]:
    """Return the working directory as a fact of a run."""
    return {"working directory": os.getcwd()}  # noqa: PTH109 - as text


def locate_models(models: str) -> str:
    """Return the models directory as an absolute path, or its URL."""
    return models if "://" in models else str(Path(models).resolve())


def score_locally(
    job: ScoreJob, operations: Operations, registry: ModelRegistry, models: str
) -> Summary:
    """Score with a model of this process. Raises DomainError; finished rows are kept."""
    source, request = locate_models(models), job.request
    loaded = registry.get(request.model, job.find_interrupted_version(source))
    model = request.choose_loaded(loaded, source)
    scorer = LocalScorer(operations, loaded, model.rate, job.pictures)
    return asyncio.run(_score(job, scorer, model))


def score_remotely(job: ScoreJob, url: str, key: str | None) -> Summary:
    """Score with a model of a running service. Raises DomainError; finished rows are kept."""
    try:
        from service.bulk.remote_scorer import RemoteScorer, connect, fetch_card
    except ImportError:
        raise InvalidParameter(
            "--url needs the Python client: run pip install '.[bulk]' in the checkout"
        ) from None

    async def score() -> Summary:
        async with connect(url, key) as client:
            name = job.request.model
            card = await fetch_card(client, name, job.find_interrupted_version(url))
            model = job.request.choose_model(url, card.version, card.calibration_images)
            scorer = RemoteScorer(client, name, card.version, model.rate, job.pictures)
            return await _score(job, scorer, model)

    return asyncio.run(score())


async def _score(job: ScoreJob, scorer: Scorer, model: ScoringModel) -> Summary:
    request = job.request
    total = request.count_files(job.omitted)
    if total == 0 and request.shard is None:  # a shard of few files can be empty
        raise request.build_empty_error()
    began = time.monotonic()
    with Journal(job.partial, job.describe_run(model)) as rows:
        resumed = rows.count()
        with show_progress(request.model, total, resumed) as bar:
            runner = BulkRunner(scorer, rows, WORKERS, job.folders, bar.update)
            await runner.run(request.find_files(job.omitted))
        speed = (rows.count() - resumed) / (time.monotonic() - began)
        summary = Summary(request.model, model, rows.count(), *rows.count_outcomes(), speed)
        tables.write(rows.read_rows(), job.output)
        rows.remove()
    return summary


def show_progress(model: str, total: int | None, resumed: int) -> "tqdm[NoReturn]":
    """Return the progress bar of a run, which shows only on a terminal."""
    unit, desc = "image", f"scoring with {model}"
    return tqdm(total=total, initial=resumed, unit=unit, desc=desc, disable=None)


def _make_folder(folder: Path, option: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidParameter(
            f"{option} {folder} cannot be made a folder: {error.strerror}"
        ) from None
