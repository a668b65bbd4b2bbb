"""Engine `ray` of the bulk command: actors of Ray Data hold the model, and write Parquet files."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import ray
import ray.data

from bundle.errors import DomainError, InvalidParameter
from service.bulk.job import Request, ScoringModel, Summary, show_progress
from service.bulk.journal import Row
from service.bulk.remote_files import RemoteFile
from service.bulk.runner import BulkRunner, Folders
from service.bulk.scorers import LocalScorer
from service.bulk.sources import ImageFile, escape
from service.bulk.table_folder import TableFolder
from service.errors import BulkError
from service.operations import NO_PICTURES, Operations
from service.registry.registry import ModelRegistry

# Of a block, and so of a Parquet file. A kill costs at most the blocks that actors have at once.
MIN_BLOCK_IMAGES, MAX_BLOCK_IMAGES = 64, 1024
BLOCKS_AT_ONCE = 2  # of an actor, because the device would wait between one block and the next
BLOCKS_OF_ACTOR = 8  # at least, so that all end at about the same time
LOCAL = "local"
# Of Ray on this machine; its object store holds only paths and counts.
OPTIONS: Mapping[str, Any] = {"include_dashboard": False, "object_store_memory": 256 * 2**20}

OpenModels = Callable[[], tuple[Operations, ModelRegistry]]
EncodedFile = tuple[bytes, int | None]  # the path or URL; and the bytes of an object of a store


class RayEngineError(BulkError):
    """Ray ended the job."""


class Resources(NamedTuple):
    """CPUs of one actor, which are its threads of inference, and its GPUs."""

    cpus: int
    gpus: int

    def describe(self) -> dict[str, int]:
        """Return the resources by their names in Ray, without those that are not needed."""
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})

    @property
    def workers(self) -> int:
        """Chunks of files at a time, of all blocks of an actor."""
        return BLOCKS_AT_ONCE * (self.cpus + 1)


@dataclass(frozen=True)
class RayJob:
    """A request, the folder of its table, and its actors; None are as many as have room."""

    request: Request
    output: str
    actors: int | None
    resources: Resources

    def check(self) -> TableFolder:
        """Return the folder of the table. Raises InvalidParameter if the job is impossible."""
        self.request.check()
        return TableFolder(self.output)


def score(job: RayJob, model: ScoringModel, table: TableFolder, open_models: OpenModels) -> Summary:
    """Score with actors that open their models. Raises DomainError; finished rows are kept."""
    files = _name_files(job.request.find_files())
    if not files:
        raise job.request.build_empty_error()
    began = time.monotonic()
    done = table.begin(job.request.describe_run(model))
    left = [file for name, file in files.items() if name not in done.paths]
    with show_progress(job.request.model, len(files), len(files) - len(left)) as bar:
        for images in _score_blocks(job, model, table, open_models, left) if left else []:
            bar.update(images)
    counts = table.complete(done, len(files.keys() | done.paths))
    speed = len(left) / (time.monotonic() - began)
    return Summary(job.request.model, model, *counts, speed)


class ScoringActor:
    """An actor of Ray Data that scores blocks of files, and writes the rows of each to a file.

    Several threads may call it at the same time.
    """

    def __init__(
        self,
        open_models: OpenModels,
        model: tuple[str, ScoringModel],
        table: TableFolder,
        workers: int,
        directory: str,
    ) -> None:
        """Open the model by its name; paths of files are relative to the directory."""
        os.chdir(directory)
        operations, registry = open_models()
        name, chosen = model
        loaded = registry.get(name, chosen.version)
        self._scorer = LocalScorer(operations, loaded, chosen.rate, NO_PICTURES)
        self._table, self._workers = table, workers // BLOCKS_AT_ONCE
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def __call__(self, block: pyarrow.Table) -> dict[str, list[int]]:
        """Score the files of a block. Returns their number."""
        columns = block.to_pydict()
        rows = BlockRows()
        runner = BulkRunner(self._scorer, rows, self._workers, Folders(), lambda _: None)
        files = map(_decode, columns["path"], columns["size"])
        asyncio.run_coroutine_threadsafe(runner.run(files), self._loop).result()
        self._table.write(columns["number"][0], [rows.rows[at] for at in sorted(rows.rows)])
        return {"images": [len(rows.rows)]}


class BlockRows:
    """Rows of a block by their positions."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}

    def find_done(self, _: Collection[str]) -> set[str]:
        """Return no path, because only files without a row are in a block."""
        return set()

    def write(self, rows: Iterable[tuple[int, Row]]) -> None:
        """Keep rows."""
        self.rows.update(rows)


def _score_blocks(
    job: RayJob,
    model: ScoringModel,
    table: TableFolder,
    open_models: OpenModels,
    files: Sequence[EncodedFile],
) -> Iterator[int]:
    """Score files in blocks. Yields the number of images in each block when it is written."""
    with _connect():
        resources = job.resources
        actors = job.actors or _count_room(resources)
        blocks = [*_split(files, actors)]
        counts = ray.data.from_blocks(blocks).map_batches(
            ScoringActor,
            batch_size=None,
            batch_format="pyarrow",
            fn_constructor_args=(
                open_models,
                (job.request.model, model),
                table,
                resources.workers,
                os.getcwd(),  # noqa: PTH109 - as text
            ),
            compute=ray.data.ActorPoolStrategy(
                size=actors,
                max_concurrent_calls_per_actor=BLOCKS_AT_ONCE,
                enable_true_multi_threading=True,
            ),
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
        )
        for row in counts.iter_rows():
            yield int(row["images"])


@contextmanager
def _connect() -> Iterator[None]:
    """Connect to the cluster at RAY_ADDRESS, or start Ray on this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    address = os.environ.get("RAY_ADDRESS", LOCAL)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, logging_level=logging.WARNING, **OPTIONS if address == LOCAL else {})
    except Exception as error:  # Ray raises plain ones, too
        raise RayEngineError(
            f"Ray at {address} cannot be started or reached: {_find_reason(error)}; check "
            "RAY_ADDRESS, and rerun to resume"
        ) from None
    signal.signal(signal.SIGTERM, on_sigterm)  # because Ray's exits with 15
    try:
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield
    except ray.exceptions.RayError as error:
        raise RayEngineError(f"Ray ended the job: {_find_reason(error)}; rerun to resume") from None
    finally:
        ray.shutdown()


def _find_reason(error: BaseException) -> str:
    """Return the message of the error that an actor raised, or the last line of Ray's."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, DomainError):
        cause = getattr(cause, "cause", None) or cause.__cause__
    return str(cause) if cause else [type(error).__name__, *str(error).split("\n")][-1]


def _count_room(resources: Resources) -> int:
    """Count the actors that the nodes have room for. Raises RayEngineError if they have for none.

    An actor is on one node, so what is left of several nodes is room for none.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(
        min(int(node.get(name, 0)) // count for name, count in resources.describe().items())
        for node in nodes
    )
    if room == 0:
        raise RayEngineError(
            f"an actor needs {resources.cpus} CPU(s) and {resources.gpus} GPU(s), and no node has "
            "them; lower AE_THREADS, choose --device cpu, or set --actors for a cluster that grows"
        )
    return room


def _name_files(files: Iterable[ImageFile]) -> dict[str, EncodedFile]:
    """Return files by their paths in the table. Raises InvalidParameter if two have the same."""
    named: dict[str, EncodedFile] = {}
    for file in files:
        name, encoded = escape(str(file)), _encode(file)
        if named.setdefault(name, encoded)[0] != encoded[0]:
            raise InvalidParameter(f"two files are {name} in the table; rename one of them")
    return named


def _split(files: Sequence[EncodedFile], actors: int) -> Iterator[pyarrow.Table]:
    """Split files into blocks, each with the number of its Parquet file."""
    even = len(files) // (BLOCKS_OF_ACTOR * actors)
    size = min(max(even, MIN_BLOCK_IMAGES), MAX_BLOCK_IMAGES)
    for number, start in enumerate(range(0, len(files), size)):
        paths, sizes = zip(*files[start : start + size], strict=True)
        numbers = [number] * len(paths)
        yield pyarrow.table(
            {"path": paths, "size": pyarrow.array(sizes, pyarrow.int64()), "number": numbers}
        )


def _encode(file: ImageFile) -> EncodedFile:
    return os.fsencode(str(file)), file.size if isinstance(file, RemoteFile) else None


def _decode(path: bytes, size: int | None) -> ImageFile:
    text = os.fsdecode(path)
    return Path(text) if size is None else RemoteFile(text, size)
