"""Metrics for Prometheus: requests, batches, scores, and images and bytes in flight."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import accumulate, islice
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

SECONDS_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
IMAGES_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SCORE_LABELS = ("model", "version")
PHASES = ("decode", "queue", "inference", "encode")
MAX_MODELS = 1000  # that have series of their own; the others share those of `OTHER`
OTHER = "other"
OTHER_LABELS = (OTHER, "")  # operation and model of a request without them
SCORE_PSI, LATENT_PSI = "ae_score_psi", "ae_latent_psi"


Bins = tuple[Sequence[int], Sequence[float]]  # counts of recent values, and expected shares
ComputePsi = Callable[[Sequence[int], Sequence[float]], float | None]


class ScoreMetrics(Protocol):
    """Counts of a model's images, their p-values by bins, and recent scores by bins."""

    @property
    def images(self) -> int: ...
    @property
    def anomalous(self) -> int: ...
    @property
    def p_values(self) -> Sequence[int]: ...
    @property
    def sum(self) -> float: ...
    @property
    def score_bins(self) -> Bins: ...
    @property
    def latent_bins(self) -> Bins | None: ...


Models = Callable[[], Iterable[tuple[str, int, str]]]  # names, versions and providers
Failures = Callable[[], Iterable[str]]  # `name/version` of bundles, `name/default` of pins
Scores = Callable[[], Iterable[tuple[str, int, ScoreMetrics]]]  # by model and version


class Metrics:
    """Metrics of an application. Any thread may call the methods."""

    def __init__(self, compute_psi: ComputePsi) -> None:
        self._compute_psi = compute_psi
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "ae_requests",
            "Requests by operation, model and status.",
            ("operation", "model", "status"),
            registry=self._registry,
        )
        self._request_seconds = self._add_histogram(
            "ae_request_seconds",
            "Seconds from the head of a request to its response.",
            "operation",
            SECONDS_BUCKETS,
        )
        self._batch_images = self._add_histogram(
            "ae_batch_images", "Images of a model in one batch.", "model", IMAGES_BUCKETS
        )
        self._batch_seconds = self._add_histogram(
            "ae_batch_seconds", "Seconds of inference of one batch.", "model", SECONDS_BUCKETS
        )
        self._errors = Counter("ae_errors", "Errors by code.", ("code",), registry=self._registry)
        self._rejections = Counter(
            "ae_rejections",
            "Requests that were not admitted, by reason.",
            ("reason",),
            registry=self._registry,
        )
        phase_seconds = self._add_histogram(
            "ae_phase_seconds",
            "Seconds of each phase of a request to an operation.",
            "phase",
            SECONDS_BUCKETS,
        )
        self._phases = [phase_seconds.labels(phase) for phase in PHASES]
        ProcessCollector(registry=self._registry)
        self._loads = Counter(
            "ae_model_loads",
            "Openings of bundles, by result.",
            ("model", "result"),
            registry=self._registry,
        )
        self._models: set[str] = set()  # that have series of their own
        # Cached, because looking up a metric by its labels is slower than counting.
        self._of_request: dict[tuple[str, str, int], Counter] = {}
        self._of_operation: dict[str, Histogram] = {}
        self._of_model: dict[Hashable, tuple[Histogram, Histogram]] = {}

    def _add_histogram(
        self, name: str, help_text: str, label: str, buckets: Sequence[float]
    ) -> Histogram:
        return Histogram(name, help_text, (label,), buckets=buckets, registry=self._registry)

    def add_gauge(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Add a gauge that calls `value` at each export."""
        Gauge(name, help_text, registry=self._registry).set_function(value)

    def add_scores(self, bins: Sequence[float], read: Scores) -> None:
        """Add score metrics that call `read` at each export; `bins` are upper ends of p-values."""
        self._registry.register(_ScoreCollector(bins, read))

    def count_error(self, code: str, rejection: str | None = None) -> None:
        """Count an error by its code, and a rejection by its reason."""
        self._errors.labels(code).inc()
        if rejection:
            self._rejections.labels(rejection).inc()

    def count_phases(self, seconds: Sequence[float]) -> None:
        """Count the seconds of each of `PHASES` of a request."""
        for histogram, each in zip(self._phases, seconds, strict=True):
            histogram.observe(each)

    def add_models(self, read: Models, read_failures: Failures) -> None:
        """Add models and failed bundles, which calls both at each export."""
        self._registry.register(_ModelCollector(read, read_failures))

    def count_load(self, model: str, succeeded: bool) -> None:
        """Count an opening of a bundle."""
        self._loads.labels(self._label(model), "ready" if succeeded else "failed").inc()

    def count_request(self, labels: tuple[str, str], status: int, seconds: float) -> None:
        """Count a request by operation, model and status."""
        operation, model = labels
        counter = self._of_request.get((operation, model, status))
        if counter is None:
            counter = self._of_request[operation, model, status] = self._requests.labels(
                operation, self._label(model), status
            )
        histogram = self._of_operation.get(operation)
        if histogram is None:
            histogram = self._of_operation[operation] = self._request_seconds.labels(operation)
        counter.inc()
        histogram.observe(seconds)

    def count_batch(self, model: str, images: int, seconds: float) -> None:
        """Count a batch of a model."""
        pair = self._of_model.get(model)
        if pair is None:
            label = self._label(model)
            pair = self._of_model[model] = (
                self._batch_images.labels(label),
                self._batch_seconds.labels(label),
            )
        pair[0].observe(images)
        pair[1].observe(seconds)

    def _label(self, model: str) -> str:
        """Return the label of a model."""
        if len(self._models) < MAX_MODELS:
            self._models.add(model)
        return model if model in self._models else OTHER

    def collect(self) -> list[Metric]:
        """Return metrics that can be added up: in place of each PSI, the counts of its bins."""
        return list(self._registry.collect())

    def render(self, metrics: Iterable[Metric]) -> bytes:
        """Return collected metrics in the text format of Prometheus."""
        return generate_latest(_Collected(self._compute_psis(metrics)))

    def export(self) -> bytes:
        """Return the metrics in the text format of Prometheus."""
        return self.render(self.collect())

    def _compute_psis(self, metrics: Iterable[Metric]) -> Iterator[Metric]:
        for metric in metrics:
            if metric.name in (SCORE_PSI, LATENT_PSI):
                yield _compute_psi(metric, self._compute_psi)
            else:
                yield metric


class _Collected(Collector):
    """Collector of metrics that are collected already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


class _ModelCollector(Collector):
    """Collector of models and failed bundles, which change while the service runs."""

    def __init__(self, read: Models, read_failures: Failures) -> None:
        self._read, self._read_failures = read, read_failures

    def collect(self) -> Iterator[Metric]:
        models = GaugeMetricFamily(
            "ae_model_info",
            "Models that can serve, and their execution providers.",
            labels=("model", "version", "provider"),
        )
        for name, version, provider in self._read():
            models.add_metric((name, str(version), provider), 1)
        yield models
        failures = GaugeMetricFamily(
            "ae_model_failure", "Bundles that cannot be opened.", labels=SCORE_LABELS
        )
        for failure in self._read_failures():
            failures.add_metric(failure.split("/"), 1)
        yield failures


class _ScoreCollector(Collector):
    """Collector of score metrics, which are counted in `Drift`.

    Counting each p-value here would be slower than computing it.
    """

    def __init__(self, bins: Sequence[float], read: Scores) -> None:
        self._bins, self._read = [str(end) for end in bins], read

    def collect(self) -> Iterator[Metric]:
        images = CounterMetricFamily(
            "ae_scored_images", "Images that were scored.", labels=SCORE_LABELS
        )
        anomalous = CounterMetricFamily(
            "ae_anomalous_images", "Images judged anomalous.", labels=SCORE_LABELS
        )
        p_values = HistogramMetricFamily(
            "ae_p_value", "P-values; uniform without drift.", labels=SCORE_LABELS
        )
        scores = _build_bins(SCORE_PSI, "scores")
        latents = _build_bins(LATENT_PSI, "latent distances")
        for name, version, each in islice(self._read(), MAX_MODELS):
            labels = (name, str(version))
            images.add_metric(labels, each.images)
            anomalous.add_metric(labels, each.anomalous)
            counts = zip(self._bins, accumulate(each.p_values), strict=True)
            p_values.add_metric(labels, [*counts, ("+Inf", each.images)], each.sum)
            _add_bins(scores, labels, each.score_bins)
            if each.latent_bins is not None:
                _add_bins(latents, labels, each.latent_bins)
        yield from (images, anomalous, p_values, scores, latents)


def _build_bins(name: str, values: str) -> GaugeMetricFamily:
    """Return the metric of a PSI, with the counts of bins until `_compute_psi`."""
    return GaugeMetricFamily(
        name,
        f"Population stability index of recent {values}.",
        labels=(*SCORE_LABELS, "bin", "expected"),
    )


def _add_bins(metric: GaugeMetricFamily, labels: tuple[str, str], bins: Bins) -> None:
    for index, (count, expected) in enumerate(zip(*bins, strict=True)):
        metric.add_metric((*labels, str(index), str(expected)), count)


def _compute_psi(metric: Metric, compute: ComputePsi) -> Metric:
    """Return the PSI of each model and version, from the counts of its bins."""
    bins: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}
    for sample in metric.samples:
        key = tuple(sample.labels[label] for label in SCORE_LABELS)
        counts, expected = bins.setdefault(key, ([], []))
        counts.append(int(sample.value))
        expected.append(float(sample.labels["expected"]))
    psis = GaugeMetricFamily(metric.name, metric.documentation, labels=SCORE_LABELS)
    for key, each in bins.items():
        psi = compute(*each)
        if psi is not None:
            psis.add_metric(key, psi)
    return psis
