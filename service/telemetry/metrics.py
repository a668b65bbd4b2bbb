"""Metrics for Prometheus: requests, batches, scores, and what is in flight."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
OTHER = ("other", "")  # the operation and model of a request that names none


class ScoreMetrics(Protocol):
    """Counts of a model's images and of their p-values by bins, and the stability of recent scores."""

    @property
    def images(self) -> int: ...
    @property
    def anomalous(self) -> int: ...
    @property
    def p_values(self) -> Sequence[int]: ...
    @property
    def sum(self) -> float: ...
    @property
    def score_psi(self) -> float | None: ...
    @property
    def latent_psi(self) -> float | None: ...


Scores = Callable[[], Iterable[tuple[str, int, ScoreMetrics]]]  # by model and version


class Metrics:
    """One application's metrics. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "ae_requests",
            "Requests that were answered.",
            ("operation", "model", "status"),
            registry=self._registry,
        )
        self._request_seconds = Histogram(
            "ae_request_seconds",
            "Seconds from the head of a request to its response.",
            ("operation",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._batch_images = Histogram(
            "ae_batch_images",
            "Images of one batch.",
            ("model",),
            buckets=IMAGES,
            registry=self._registry,
        )
        self._batch_seconds = Histogram(
            "ae_batch_seconds",
            "Seconds of inference of one batch.",
            ("model",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._models = Gauge(
            "ae_model_info",
            "Models that are ready, and their execution providers.",
            ("model", "version", "provider"),
            registry=self._registry,
        )
        # To look a metric up by its labels costs more than to count.
        self._of_request: dict[tuple[str, str, int], Counter] = {}
        self._of_operation: dict[str, Histogram] = {}
        self._of_model: dict[Hashable, tuple[Histogram, Histogram]] = {}

    def gauge(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Add a gauge that is read whenever it is asked for."""
        Gauge(name, help_text, registry=self._registry).set_function(value)

    def scores(self, bins: Sequence[float], read: Scores) -> None:
        """Add metrics of scores, read whenever they are asked for; `bins` are the upper ends of the p-values'."""
        self._registry.register(_ScoreCollector(bins, read))

    def model(self, name: str, version: int, provider: str) -> None:
        """Add a model that is ready."""
        self._models.labels(name, version, provider).set(1)

    def request(self, labels: tuple[str, str], status: int, seconds: float) -> None:
        """Count a request, by its operation and model."""
        operation, model = labels
        counter = self._of_request.get((operation, model, status))
        if counter is None:
            counter = self._of_request[operation, model, status] = self._requests.labels(
                operation, model, status
            )
        histogram = self._of_operation.get(operation)
        if histogram is None:
            histogram = self._of_operation[operation] = self._request_seconds.labels(operation)
        counter.inc()
        histogram.observe(seconds)

    def batch(self, model: str, images: int, seconds: float) -> None:
        """Count a batch."""
        pair = self._of_model.get(model)
        if pair is None:
            pair = self._of_model[model] = (
                self._batch_images.labels(model),
                self._batch_seconds.labels(model),
            )
        pair[0].observe(images)
        pair[1].observe(seconds)

    def exposition(self) -> bytes:
        """The text for Prometheus."""
        return generate_latest(self._registry)


class _ScoreCollector(Collector):
    """Counts are kept where the scores are: to count each p-value here would cost more than to find it."""

    def __init__(self, bins: Sequence[float], read: Scores) -> None:
        self._bins, self._read = [str(end) for end in bins], read

    def collect(self) -> Iterator[Metric]:
        labels = ("model", "version")
        images = CounterMetricFamily("ae_scored_images", "Images that were scored.", labels=labels)
        anomalous = CounterMetricFamily(
            "ae_anomalous_images", "Images judged anomalous.", labels=labels
        )
        p_values = HistogramMetricFamily(
            "ae_p_value",
            "P-values; uniform for images like those of the calibration.",
            labels=labels,
        )
        scores = GaugeMetricFamily(
            "ae_score_psi", "Population stability index of recent scores.", labels=labels
        )
        words = "Population stability index of recent latent distances."
        latents = GaugeMetricFamily("ae_latent_psi", words, labels=labels)
        for name, version, each in self._read():
            of = (name, str(version))
            images.add_metric(of, each.images)
            anomalous.add_metric(of, each.anomalous)
            counts = [
                *zip(self._bins, accumulate(each.p_values), strict=True),
                ("+Inf", each.images),
            ]
            p_values.add_metric(of, counts, each.sum)
            if each.score_psi is not None:
                scores.add_metric(of, each.score_psi)
            if each.latent_psi is not None:
                latents.add_metric(of, each.latent_psi)
        yield from (images, anomalous, p_values, scores, latents)
