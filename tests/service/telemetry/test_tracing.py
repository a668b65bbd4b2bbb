import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from starlette.testclient import TestClient

from bundle.errors import InvalidParameter
from service.api import schemas
from service.app import build_services, create_app, open_tracing
from service.settings import Settings
from service.telemetry.tracing import Tracing
from tests.service.api.helpers import TINY

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
IMAGE = {"images": [schemas.EXAMPLE_IMAGE]}


def trace(models: Path, path: str, **options: Any) -> list[Any]:
    """The spans of a request, and of a look at a probe."""
    exporter = InMemorySpanExporter()
    services = build_services(Settings(models=models, device="cpu", preload=("tiny",)))
    with TestClient(create_app(services, Tracing(exporter))) as client:
        client.get("/livez")
        client.post(path, **options)
    return list(exporter.get_finished_spans())


def test_a_request_has_a_span_with_its_phases_in_the_trace_of_its_client(models: Path) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-ID": "mine"}
    *phases, span = trace(models, f"{TINY}/encode", json=IMAGE, headers=headers)
    assert (span.name, span.kind) == ("encode", SpanKind.SERVER)
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    assert dict(span.attributes) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "url.path": f"{TINY}/encode",
        "ae.model": "tiny",
        "ae.request_id": "mine",
    }
    assert [phase.name for phase in phases] == ["decode", "queue", "inference", "encode"]
    times = [time for phase in phases for time in (phase.start_time, phase.end_time)]
    assert times == sorted(times)
    assert span.start_time <= times[0]
    assert times[-1] <= span.end_time
    assert {phase.parent.span_id for phase in phases} == {span.context.span_id}


def test_an_error_is_named(models: Path) -> None:
    (span,) = trace(models, f"{TINY}/encode", content=b"", headers={"Content-Type": "text/plain"})
    assert span.attributes["error.type"] == "unsupported_media_type"
    assert span.attributes["http.response.status_code"] == 415


def test_a_client_can_ask_for_no_trace(models: Path) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    assert trace(models, f"{TINY}/encode", json=IMAGE, headers=headers) == []


def test_spans_go_to_the_collector_of_the_environment(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        monkeypatch.setenv(
            "OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}"
        )
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        collector.timeout = 60
        serving = threading.Thread(target=collector.handle_request)
        serving.start()
        services = build_services(Settings(models=models, device="cpu"))
        with TestClient(create_app(services, open_tracing())) as client:
            client.post(f"{TINY}/encode", json=IMAGE)
        serving.join()
    assert received
    (resource,) = ExportTraceServiceRequest.FromString(received[0]).resource_spans
    named = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert named["service.name"] == "autoencoder-service"
    assert named["deployment.environment.name"] == "test"
    assert [span.name for span in resource.scope_spans[0].spans][-1] == "encode"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "service.telemetry.tracing")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(InvalidParameter, match=r"AE_TRACING needs opentelemetry.* extra `tracing`"):
        open_tracing()


def test_an_invalid_variable_of_opentelemetry_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")
    with pytest.raises(InvalidParameter, match="OTEL_"):
        open_tracing()
