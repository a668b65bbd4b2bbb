"""Traces of requests, sent by OpenTelemetry's protocol over HTTP.

OpenTelemetry's own variables name the collector and the sampling (OTEL_EXPORTER_OTLP_ENDPOINT,
OTEL_TRACES_SAMPLER, ...).
"""

import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service import VERSION

SERVICE_NAME = "autoencoder-service"  # unless OTEL_SERVICE_NAME is set
FLUSH_SECONDS = 1.0  # for the last spans at the end of the process


class Times(Protocol):
    """The start of a request, and its phases with their starts and seconds."""

    @property
    def started(self) -> float: ...
    @property
    def intervals(self) -> Iterable[tuple[str, float, float]]: ...


class Request(Protocol):
    """A request that has ended; times are on the clock of `time.monotonic`."""

    @property
    def request_id(self) -> str: ...
    @property
    def labels(self) -> tuple[str, str]: ...  # operation and model
    @property
    def error(self) -> str | None: ...  # code
    @property
    def timings(self) -> Times: ...


class Tracing:
    """Spans of requests: a server span, with a child for each phase.

    Spans are made when the request has ended, from its times: during a request, nothing is slower.
    """

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        """Send spans with the exporter; by default to the collector of the environment.

        Raises ValueError if a variable of OpenTelemetry is invalid.
        """
        own = Resource({"service.name": SERVICE_NAME, "service.version": VERSION})
        resource = own.merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer(SERVICE_NAME, VERSION)
        self._propagator = TraceContextTextMapPropagator()

    def record(self, request: Request, scope: Mapping[str, Any], status: int) -> None:
        """Make the spans of a request, in the trace of its client if `traceparent` names one."""
        epoch = time.time() - time.monotonic()
        operation, model = request.labels
        attributes = {
            "http.request.method": scope["method"],
            "http.response.status_code": status,
            "url.path": scope["raw_path"].decode("ascii", "replace"),
            "ae.model": model,
            "ae.request_id": request.request_id,
        }
        span = self._tracer.start_span(
            operation,
            self._propagator.extract(_read_trace_headers(scope)),
            SpanKind.SERVER,
            attributes | ({"error.type": request.error} if request.error else {}),
            start_time=_convert(request.timings.started + epoch),
        )
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        if span.is_recording():
            parent = set_span_in_context(span)
            for phase, began, seconds in request.timings.intervals:
                start = _convert(began + epoch)
                child = self._tracer.start_span(phase, parent, start_time=start)
                child.end(_convert(began + seconds + epoch))
        span.end()

    def close(self) -> None:
        """Send the last spans, for at most FLUSH_SECONDS."""
        # On a thread, because the end waits 30 s for a collector that does not answer.
        flush = threading.Thread(target=self._provider.shutdown, daemon=True)
        flush.start()
        flush.join(FLUSH_SECONDS)


def _read_trace_headers(scope: Mapping[str, Any]) -> dict[str, str]:
    return {
        name.decode(): value.decode("latin-1")
        for name, value in scope["headers"]
        if name in (b"traceparent", b"tracestate")
    }


def _convert(seconds: float) -> int:
    """Convert seconds to nanoseconds."""
    return int(seconds * 1e9)
