"""The client against a service that is played, and so can fail as needed."""

import asyncio
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from autoencoder_client import (
    AsyncClient,
    Client,
    InvalidRequest,
    InvalidResponse,
    ServiceError,
    Unreachable,
)
from autoencoder_client.retries import FIRST_WAIT_SECONDS
from PIL import Image

MAX_IMAGES = 4
CARDS = {"models": [], "limits": {"max_images": MAX_IMAGES, "max_body_bytes": 10_000}}
Fault = httpx2.Response | Exception


class Service:
    """A service that encodes an image as its bytes' length, after the faults that it is given.

    An image that begins with `bad` is invalid.
    """

    def __init__(self, *faults: Fault) -> None:
        self.faults = list(faults)
        self.batches: list[list[bytes]] = []
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if request.url.path == "/v1/models":
            return httpx2.Response(200, json=CARDS)
        if self.faults:
            fault = self.faults.pop(0)
            if isinstance(fault, Exception):
                raise fault
            return fault
        images = re.findall(rb"\r\n\r\n(.*?)\r\n--", request.read(), re.DOTALL)
        self.batches.append(images)
        invalid = [index for index, image in enumerate(images) if image.startswith(b"bad")]
        if invalid:
            items = [{"index": at, "code": "invalid_image", "detail": "bad"} for at in invalid]
            return problem(422, "invalid_image", errors=items)
        latents = [[float(len(image))] for image in images]
        document = {"latents": latents, "encoder": "digest", "version": 7}
        return httpx2.Response(200, json=document)


def problem(status: int, code: str, **more: Any) -> httpx2.Response:
    headers = {"Retry-After": "0"} if status in (429, 503) else {}
    document = {"code": code, "detail": f"it is {code}", "status": status} | more
    return httpx2.Response(status, json=document, headers=headers)


def encode(service: Service, images: Sequence[Any], **options: Any) -> Any:
    with Client("http://a", transport=httpx2.MockTransport(service), **options) as client:
        return client.encode("m", images)


def test_many_images_are_sent_within_the_limits() -> None:
    service = Service()
    images = [b"x" * (1 + index) for index in range(10)] + [b"y" * 9_000, b"z" * 9_000]
    encoded = encode(service, images)
    assert encoded.latents[:, 0].tolist() == [float(len(image)) for image in images]
    assert encoded.encoder == "digest"
    assert [len(batch) for batch in service.batches] == [4, 4, 3, 1]


def test_all_requests_go_to_the_version_that_responded_first() -> None:
    service = Service()
    encode(service, [b"x"] * 9)
    paths = [request.url.path for request in service.requests]
    assert paths[1:] == ["/v1/models/m/encode", *["/v1/models/m/versions/7/encode"] * 2]


def test_an_image_beyond_the_limit_fails_alone() -> None:
    encoded = encode(Service(), [b"x", b"y" * 10_000])
    assert encoded.latents[0].tolist() == [1.0]
    assert "10000 bytes" in encoded.failures[1]


@pytest.mark.parametrize(
    "rejection", [problem(413, "image_too_large"), httpx2.Response(413, text="<html>")]
)
def test_images_that_are_too_large_together_are_sent_apart(rejection: httpx2.Response) -> None:
    service = Service(rejection, rejection)
    encode(service, [b"a", b"b", b"c", b"d"])
    assert [len(batch) for batch in service.batches] == [1, 1, 1, 1]


@pytest.mark.parametrize("image", ["a.png", b"bytes", Path("a.png"), np.zeros((4, 6), np.uint8)])
def test_one_image_in_place_of_a_list_is_an_error(image: Any) -> None:
    with pytest.raises(InvalidRequest, match="send a list"):
        encode(Service(), image)


def test_a_timeout_of_the_response_is_not_retried() -> None:
    service = Service(httpx2.ReadTimeout("late"))
    with pytest.raises(Unreachable, match="ReadTimeout late"):
        encode(service, [b"a"])


def test_a_timeout_of_the_response_is_retried_on_request(no_waits: list[float]) -> None:
    encoded = encode(Service(httpx2.ReadTimeout("late")), [b"a"], retry_timeouts=True)
    assert encoded.latents.tolist() == [[1.0]]
    assert len(no_waits) == 1


def test_retries_are_logged_and_overload_only_as_information(
    no_waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "autoencoder_client")
    faults = problem(429, "overloaded"), problem(503, "model_not_ready"), httpx2.ReadError("cut")
    encode(Service(*faults), [b"a"])
    logged = [each for each in caplog.records if each.name == "autoencoder_client"]
    assert [each.levelname for each in logged] == ["INFO", "WARNING", "WARNING"]
    assert "http://a/v1/models/m/encode responded 503 model_not_ready" in logged[1].getMessage()
    assert "ReadError cut" in logged[2].getMessage()
    assert len(no_waits) == 3


@pytest.mark.parametrize(
    "response",
    [
        httpx2.Response(200, text="<html>"),
        httpx2.Response(200, json={}),
        httpx2.Response(200, json={"latents": [[1.0]]}),
        httpx2.Response(200, json={"latents": [["a"], ["b"]]}),
        problem(422, "invalid_image", errors=[{"index": 2, "detail": "who?"}]),
        problem(422, "invalid_image", errors=["bad"]),
    ],
)
def test_an_invalid_response_is_typed(response: httpx2.Response) -> None:
    with pytest.raises(InvalidResponse, match=r"http://a/v1/models/m/encode sent an invalid"):
        encode(Service(response), [b"a", b"b"])


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://a", "http://", "http://[::1", ""])
def test_an_invalid_url_is_an_error_at_once(url: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a URL"):
        Client(url)


def test_the_card_of_a_version_is_fetched() -> None:
    service = Service(httpx2.Response(200, json={"version": 2}))
    with Client("http://a", transport=httpx2.MockTransport(service)) as client:
        assert client.model("a b/versions/2") == {"version": 2}
    assert service.requests[0].url.raw_path == b"/v1/models/a%20b/versions/2"


def test_an_error_of_a_proxy_is_typed() -> None:
    with pytest.raises(ServiceError, match="<html>") as error:
        encode(Service(httpx2.Response(500, text="<html>")), [b"a"])
    assert error.value.code == "unknown"


def test_one_invalid_image_of_many_fails_alone(tmp_path: Path) -> None:
    images: list[Any] = [b"x" * (1 + index % 7) for index in range(1000)]
    images[500], images[700] = b"bad", tmp_path / "missing.png"
    encoded = encode(Service(), images)
    assert set(encoded.failures) == {500, 700}
    assert encoded.failures[500] == "bad"
    assert "missing.png cannot be read" in encoded.failures[700]
    failed = np.isnan(encoded.latents[:, 0])
    assert np.flatnonzero(failed).tolist() == [500, 700]


@pytest.mark.parametrize(
    "fault",
    [problem(429, "overloaded"), problem(503, "model_not_ready"), httpx2.ReadError("cut")],
)
def test_passing_faults_are_retried(fault: Fault, no_waits: list[float]) -> None:
    encoded = encode(Service(fault), [b"abc"])
    assert encoded.latents.tolist() == [[3.0]]
    assert len(no_waits) == 1


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits of the client, which end at once."""
    waits: list[float] = []
    monkeypatch.setattr("autoencoder_client.client.time.sleep", waits.append)
    return waits


def test_waits_are_those_that_the_service_names_and_grow_without(no_waits: list[float]) -> None:
    named = problem(429, "overloaded")
    named.headers["Retry-After"] = "7"
    encode(Service(named, httpx2.ConnectError("refused"), httpx2.ConnectError("refused")), [b"a"])
    assert 7 <= no_waits[0] <= 7 * 1.25
    assert 2 * FIRST_WAIT_SECONDS <= no_waits[1] <= 2.5 * FIRST_WAIT_SECONDS
    assert 4 * FIRST_WAIT_SECONDS <= no_waits[2] <= 5 * FIRST_WAIT_SECONDS


def test_without_time_for_a_retry_the_error_is_typed() -> None:
    with pytest.raises(ServiceError, match="it is overloaded") as limited:
        encode(Service(*[problem(429, "overloaded")] * 3), [b"a"], retry_seconds=-1)
    assert (limited.value.status, limited.value.code) == (429, "overloaded")
    with pytest.raises(Unreachable, match="ConnectError refused"):
        encode(Service(httpx2.ConnectError("refused")), [b"a"], retry_seconds=-1)


def test_other_errors_are_not_retried() -> None:
    service = Service(problem(404, "model_not_found"))
    with pytest.raises(ServiceError, match="404 model_not_found"):
        encode(service, [b"a"])
    assert len(service.requests) == 2


def test_a_key_is_sent_and_names_are_quoted() -> None:
    service = Service()
    transport = httpx2.MockTransport(service)
    with Client("http://a", key="secret", transport=transport) as client:
        client.encode("a b", [b"x"])
    request = service.requests[-1]
    assert request.headers["authorization"] == "Bearer secret"
    assert request.url.raw_path == b"/v1/models/a%20b/encode"


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 6), np.uint8),
        np.zeros((4, 6, 1), np.uint8),
        np.zeros((4, 6, 3), np.uint8),
        Image.new("L", (6, 4)),
    ],
)
def test_arrays_and_pil_images_become_png(image: Any) -> None:
    service = Service()
    encode(service, [image])
    assert service.batches[0][0].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((4, 6), np.float32), "send uint8"),
        (np.zeros((4, 6, 2), np.uint8), "1, 3 or 4 channels"),
        (np.zeros((0, 6), np.uint8), "no pixels"),
        (Image.new("CMYK", (6, 4)), "convert the image to RGB"),
    ],
)
def test_what_is_no_image_is_named(image: Any, reason: str) -> None:
    assert reason in encode(Service(), [image]).failures[0]


def test_latents_of_failed_images_are_not_decoded() -> None:
    with (
        Client("http://a", transport=httpx2.MockTransport(Service())) as client,
        pytest.raises(InvalidRequest, match="finite"),
    ):
        client.decode("m", np.full((1, 2), np.nan, np.float32))


def test_files_of_a_folder_are_scored_with_progress(tmp_path: Path) -> None:
    for name, content in (("b.png", b"x"), ("a.jpg", b"bad"), ("notes.txt", b"x")):
        (tmp_path / name).write_bytes(content)
    score = {"score": 1.0, "p_value": 0.5, "threshold": 2.0, "is_anomaly": False}

    class Scorer(Service):
        def __call__(self, request: httpx2.Request) -> httpx2.Response:
            response = super().__call__(request)
            document = json.loads(response.content)
            if "latents" in document:
                results = [score] * len(document["latents"])
                return httpx2.Response(200, json={"results": results, "false_positive_rate": 0.1})
            return response

    reports: list[tuple[int, int]] = []
    with Client("http://a", transport=httpx2.MockTransport(Scorer())) as client:
        found = client.score_folder("m", tmp_path, progress=lambda *each: reports.append(each))
        with pytest.raises(InvalidRequest, match="is no folder"):
            client.score_folder("m", tmp_path / "other")
    assert {path.name for path in found.scores} == {"b.png"}
    assert {path.name: reason for path, reason in found.failures.items()} == {"a.jpg": "bad"}
    assert reports == [(2, 2)]


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert methods(Client) == methods(AsyncClient)


def test_the_asynchronous_client_does_the_same() -> None:
    async def run() -> Any:
        transport = httpx2.MockTransport(Service(problem(503, "model_not_ready")))
        async with AsyncClient("http://a", transport=transport) as client:
            return await client.encode("m", [b"abc", b"bad"])

    encoded = asyncio.run(run())
    assert encoded.latents[0].tolist() == [3.0]
    assert encoded.failures == {1: "bad"}
