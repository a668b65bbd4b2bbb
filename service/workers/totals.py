"""Metrics of all workers, as if they were one process."""

import logging
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
from prometheus_client.core import Metric

from service.telemetry.metrics import Metrics
from service.workers.peers import Peers

METRICS_SECONDS = 5.0  # within which a worker collects those of a thousand models
COUNTED = ("counter", "histogram")  # types of metrics that must not fall when a worker ends
# Gauges that are facts of all workers, and the files of the worker that has the most open.
MAXIMA = {
    "ae_model_info",
    "ae_model_failure",
    "process_start_time_seconds",
    "process_open_fds",
    "process_max_fds",
}

Snapshot = list[Any]  # of metrics, as JSON can hold them

logger = logging.getLogger(__name__)


class Totals:
    """Sums of the workers' metrics.

    A worker writes its metrics to a file whenever it reports them. Its successor counts on from
    the file, so that no counter falls. Without an answer, the counters and maxima of the file stand
    for a worker.
    """

    def __init__(self, metrics: Metrics, peers: Peers) -> None:
        self._metrics, self._peers = metrics, peers
        former = self._read(peers.worker.number) if peers.worker.others else []
        counted = [metric for metric in former if metric.type in COUNTED]

        @peers.answers("metrics")
        async def read(_: object) -> Snapshot:
            snapshot = _pack(add_up([metrics.collect(), counted]))
            self._write(snapshot)
            return snapshot

    async def export(self) -> bytes:
        """Return the metrics of all workers in the text format of Prometheus."""
        if not self._peers.worker.others:
            return self._metrics.export()
        answers = await self._peers.ask("metrics", timeout=METRICS_SECONDS)
        silent = [each for each in self._peers.worker.others if each not in answers]
        found = [*map(_unpack, answers.values()), *map(self._read_lasting, silent)]
        return self._metrics.render(add_up(found))

    def _write(self, snapshot: Snapshot) -> None:
        path = self._locate(self._peers.worker.number)
        written = path.with_suffix(".new")
        try:
            written.write_bytes(zlib.compress(orjson.dumps(snapshot), 1))
            written.replace(path)
        except OSError as error:  # such as no room; without the file, only a restart loses counts
            logger.error("the metrics of a worker cannot be kept for its successor: %s", error)

    def _read(self, number: int) -> list[Metric]:
        """Return the metrics that a worker last reported; none if it never did."""
        try:
            return _unpack(orjson.loads(zlib.decompress(self._locate(number).read_bytes())))
        except FileNotFoundError:
            return []

    def _read_lasting(self, number: int) -> list[Metric]:
        """Return the metrics that must not fall while a worker does not answer."""
        return [
            metric
            for metric in self._read(number)
            if metric.type in COUNTED or metric.name in MAXIMA
        ]

    def _locate(self, number: int) -> Path:
        return self._peers.worker.directory / f"{number}.metrics"


def add_up(workers: Iterable[Iterable[Metric]]) -> list[Metric]:
    """Return the metrics of all workers together."""
    families: dict[str, Metric] = {}
    totals: dict[str, dict[Any, float]] = {}  # by family, then by name and labels of the sample
    for metric in (metric for worker in workers for metric in worker):
        families.setdefault(metric.name, metric)
        values = totals.setdefault(metric.name, {})
        for sample in metric.samples:
            key = sample.name, tuple(sample.labels.items())
            former = values.get(key)
            values[key] = (
                sample.value
                if former is None
                else _combine(metric.name, sample.name, former, sample.value)
            )
    return [_build(families[name], values) for name, values in totals.items()]


def _combine(metric: str, sample: str, one: float, other: float) -> float:
    if sample.endswith("_created"):
        return min(one, other)
    return max(one, other) if metric in MAXIMA else one + other


def _build(like: Metric, values: dict[Any, float]) -> Metric:
    metric = Metric(like.name, like.documentation, like.type)
    for (name, labels), value in values.items():
        metric.add_sample(name, dict(labels), value)
    return metric


def _pack(metrics: Iterable[Metric]) -> Snapshot:
    return [
        [each.name, each.documentation, each.type, [sample[:3] for sample in each.samples]]
        for each in metrics
    ]


def _unpack(snapshot: Snapshot) -> list[Metric]:
    metrics = []
    for name, documentation, form, samples in snapshot:
        metric = Metric(name, documentation, form)
        for sample in samples:
            metric.add_sample(*sample)
        metrics.append(metric)
    return metrics
