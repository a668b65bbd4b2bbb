"""API keys, and hostile bodies and clients."""

import asyncio
import threading
import time
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from starlette.types import Receive, Send

from bundle.tensors import Tensors
from service.scheduling.batcher import Work
from tests.service.api.helpers import (
    NPY,
    PNG,
    TINY,
    application,
    check_problem,
    entries,
    png,
)


def test_keys_permit_their_operations(models: Any) -> None:
    client, _ = application(
        models, api_keys=entries({"all": ["*"], "some": ["encode"], "none": []})
    )
    body: Any = {"content": png(), "headers": PNG}

    def send(operation: str, key: str | None) -> Any:
        headers = PNG | ({"Authorization": f"Bearer {key}"} if key else {})
        return client.post(f"{TINY}/{operation}", content=png(), headers=headers)

    with client:
        for response in (
            client.post(f"{TINY}/encode", **body),
            client.get("/v1/models"),
            send("encode", "al"),
        ):
            check_problem(response, 401, "unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"
        assert send("encode", "all").status_code == send("reconstruct", "all").status_code == 200
        assert send("encode", "some").status_code == 200
        assert (
            "it permits: encode"
            in check_problem(send("reconstruct", "some"), 403, "forbidden")["detail"]
        )
        check_problem(send("encode", "none"), 403, "forbidden")
        assert client.get("/v1/models", headers={"Authorization": "Bearer none"}).status_code == 200
        for open_path in ("/livez", "/readyz", "/docs", "/openapi.json"):
            assert client.get(open_path).status_code == 200


@pytest.mark.parametrize(
    "path", ["reconstruct?size=original", "denoise?size=original", "anomaly-score?heatmap=true"]
)
def test_small_files_cannot_become_a_huge_response(models: Any, path: str) -> None:
    client, _ = application(models, max_output_pixels=10_000)
    files = [("images", ("a.png", png((60, 60))))]
    with client:
        assert client.post(f"{TINY}/{path}", files=files * 2).status_code == 200
        response = client.post(f"{TINY}/{path}", files=files * 3)
    assert "would hold 10800 pixels" in check_problem(response, 413, "image_too_large")["detail"]


def npy_header(text: str, data: bytes = b"") -> bytes:
    header = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    "content",
    [
        npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, -4, 6)}", bytes(24)),
        npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (True, 4, 6)}", bytes(24)),
        npy_header(
            "{'descr': '|u1', 'fortran_order': False, 'shape': (0, 4, 6, 100000000000000000000)}"
        ),
        npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (" + "1, " * 70 + ")}", b"1"),
        npy_header("{'descr': '|V0', 'fortran_order': False, 'shape': (1, 4, 6)}"),
        npy_header("{'descr': '<U0', 'fortran_order': False, 'shape': (1, 4, 6)}"),
        npy_header("{'descr': ('|u1', (4, 6)), 'fortran_order': False, 'shape': (1,)}", bytes(24)),
        npy_header("{'descr': '|u1', 1: False, 'shape': (1,)}"),
        npy_header("(((("),
        npy_header("'''"),
        npy_header("-" * 9000 + "1"),
    ],
)
def test_hostile_npy_headers_are_malformed(client: TestClient, content: bytes) -> None:
    check_problem(
        client.post(f"{TINY}/encode", content=content, headers=NPY), 400, "malformed_request"
    )


def post() -> dict[str, Any]:
    """The scope of a request for an encoding, as a server makes it."""
    path = f"{TINY}/encode"
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
    }
    return scope | {"headers": [(b"content-type", b"image/png")]}


async def call_app(client: TestClient, receive: Receive, send: Send) -> None:
    await client.app(post(), receive, send)


async def disconnect(client: TestClient, message: dict[str, Any]) -> list[Any]:
    """Send this part of a request, then disconnect. Returns the messages of the application."""
    messages = iter([{"type": "http.request", **message}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    await call_app(client, receive, send)
    return sent


def test_a_client_that_disconnects_while_it_sends_is_no_defect(
    models: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    client, _ = application(models)

    with caplog.at_level("INFO"):
        assert asyncio.run(disconnect(client, {"body": b"x", "more_body": True})) == []
    assert "the client disconnected before the response to request" in caplog.text
    assert " 499 " in capsys.readouterr().err
    assert "Traceback" not in caplog.text


def test_a_body_that_does_not_come_in_time_gets_504(models: Any) -> None:
    client, _ = application(models, request_timeout=0.02)
    parts = iter([{"type": "http.request", "body": b"x", "more_body": True}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(parts, None) or await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(call_app(client, receive, send))
    assert sent[0]["status"] == 504
    assert "the body was not complete after 0.02 s" in sent[1]["body"].decode()


def test_a_rejection_throttled_past_the_timeout_is_still_a_rejection(models: Any) -> None:
    client, services = application(
        models, request_timeout=0.05, max_images=1, max_queued_images=1, max_share=1
    )

    async def crowd() -> list[list[Any]]:
        messages = {"body": b"x", "more_body": True}
        return await asyncio.gather(*(disconnect(client, messages) for _ in range(250)))

    with services.admission.admit(1):
        sent = asyncio.run(crowd())
    assert {start["status"] for start, _ in sent} == {429}


def test_a_full_service_refuses_before_it_reads_the_body(models: Any) -> None:
    client, services = application(models, max_images=1, max_queued_images=1, max_share=1)
    with services.admission.admit(1):
        start, _ = asyncio.run(disconnect(client, {"body": b"x", "more_body": True}))
    assert start["status"] == 429


def test_a_body_counts_while_it_comes_and_no_longer_than_its_request(models: Any) -> None:
    client, services = application(models)
    counted = []
    parts = iter([{"type": "http.request", "body": b"xyz", "more_body": True}])

    async def receive() -> Any:
        counted.append(services.admission.bytes)
        return next(parts, {"type": "http.disconnect"})

    async def send(_: Any) -> None: ...

    asyncio.run(call_app(client, receive, send))
    assert counted == [0, 3]
    assert services.admission.bytes == 0


@pytest.mark.parametrize("announced", [True, False])
def test_bodies_beyond_the_limit_are_rejected_and_fit_later(models: Any, announced: bool) -> None:
    client, services = application(models, max_body_bytes=1000, max_queued_bytes=1000)
    image = png()
    content = image if announced else iter([image])
    with client:
        with services.admission.track_upload() as upload:
            upload.add(1001 - len(image))
            check_problem(
                client.post(f"{TINY}/encode", content=content, headers=PNG), 429, "overloaded"
            )
        assert client.post(f"{TINY}/encode", content=image, headers=PNG).status_code == 200


def test_work_of_a_disconnected_client_never_runs(
    models: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    client, services = application(models)
    began, finish = threading.Event(), threading.Event()

    def hold(tensors: Tensors) -> Tensors:
        began.set()
        assert finish.wait(60)
        return tensors

    async def disconnect_while_it_waits() -> list[Any]:
        work = Work("other", "", hold, {"images": np.zeros(1)})
        busy = asyncio.create_task(services.executor.run(work, time.monotonic() + 60))
        await asyncio.to_thread(began.wait, 60)
        sent = await disconnect(client, {"body": png(), "more_body": False})
        finish.set()
        await busy
        return sent

    with caplog.at_level("INFO"):
        assert asyncio.run(disconnect_while_it_waits()) == []
    services.executor.close()
    assert " 499 " in capsys.readouterr().err
    assert "Traceback" not in caplog.text
    assert 'ae_batch_images_count{model="tiny"}' not in services.metrics.export().decode()


def test_a_key_has_its_requests_a_second(models: Any) -> None:
    client, _ = application(models, api_keys=entries({"k": ["encode"]}, rate=2))
    headers = PNG | {"Authorization": "Bearer k"}
    with client:
        responses = [
            client.post(f"{TINY}/encode", content=png(), headers=headers) for _ in range(8)
        ]
    limited = [each for each in responses if each.status_code == 429]
    assert limited
    assert check_problem(limited[0], 429, "rate_limited")["detail"].startswith("the API key may")
    assert limited[0].headers["retry-after"] == "1"


def test_the_page_is_protected(client: TestClient) -> None:
    headers = client.get("/docs").headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    origin = {"Origin": "https://elsewhere.example"}
    assert "access-control-allow-origin" not in client.get("/livez", headers=origin).headers
