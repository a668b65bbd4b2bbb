import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import httpx2
import pytest
from autoencoder_client import AsyncClient

from bundle.conformal import Verdict
from bundle.errors import InvalidParameter
from service.bulk import remote_scorer
from service.bulk.remote_scorer import RemoteError, RemoteScorer, ScoringCard, fetch_card
from service.bulk.scorers import ImageScore, TooLarge
from service.errors import OperationNotSupported
from service.operations import NO_PICTURES, Pictures

Result = TypeVar("Result")
VERDICT = {"score": 0.5, "p_value": 0.25, "threshold": None, "is_anomaly": None}
SCORES = httpx2.Response(200, json={"results": [VERDICT, VERDICT]})
LIMITS = {"models": [], "limits": {"max_images": 64, "max_body_bytes": 2**24}}


def problem(status: int, headers: dict[str, str] | None = None, **more: Any) -> httpx2.Response:
    document = {"status": status, "detail": "so it is", **more}
    return httpx2.Response(status, headers=headers, json=document)


class Service:
    """Names its limits, otherwise returns these responses in order, and keeps their requests."""

    def __init__(self, *responses: httpx2.Response | Exception) -> None:
        self._responses: Iterator[httpx2.Response | Exception] = iter(responses)
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/v1/models":
            return httpx2.Response(200, json=LIMITS)
        self.requests.append(request)
        response = next(self._responses)
        if isinstance(response, Exception):
            raise response
        return response


def call(
    service: Service, use: Callable[[AsyncClient], Awaitable[Result]], seconds: float = 60.0
) -> Result:
    """Use a client as the command connects it, but to this service."""
    transport = httpx2.MockTransport(service)
    played = partial(AsyncClient, retry_seconds=seconds, transport=transport)

    async def run() -> Result:
        async with remote_scorer.connect("http://service", None) as client:
            return await use(client)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote_scorer, "AsyncClient", played)
        patch.setattr("autoencoder_client.retries.FIRST_WAIT_SECONDS", 0.0)
        return asyncio.run(run())


def score(
    service: Service, seconds: float = 60.0, pictures: Pictures = NO_PICTURES
) -> list[ImageScore | str]:
    async def use(client: AsyncClient) -> list[ImageScore | str]:
        scorer = RemoteScorer(client, "a model", "3", 0.05, pictures)
        return await scorer.score([b"one", b"two"])

    return call(service, use, seconds)


def test_images_are_sent_together_and_verdicts_come_back() -> None:
    service = Service(SCORES)
    assert score(service) == [ImageScore(Verdict(0.5, 0.25, None, None), None)] * 2
    (request,) = service.requests
    assert request.url.raw_path == (
        b"/v1/models/a%20model/versions/3/anomaly-score?false_positive_rate=0.05"
    )
    body = request.read()
    assert body.count(b'name="images"') == 2
    assert b"one" in body


@pytest.mark.parametrize(
    "failure",
    [
        problem(429, {"Retry-After": "0"}),
        problem(503),
        httpx2.Response(502, text="<html>"),
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("slow"),
    ],
    ids=str,
)
def test_temporary_failures_are_retried(failure: httpx2.Response | Exception) -> None:
    service = Service(failure, failure, SCORES)
    assert len(score(service)) == 2
    assert len(service.requests) == 3


def test_retries_are_logged_except_for_overload(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    score(Service(problem(429), problem(503), httpx2.ConnectError("refused"), SCORES))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "responded 503" in caplog.messages[0]
    assert "ConnectError refused" in caplog.messages[1]


@pytest.mark.parametrize(
    ("failure", "complaint"),
    [
        (problem(429, {"Retry-After": "7"}), "it responded 429 so it is; rerun to resume"),
        (httpx2.ConnectError("refused"), "ConnectError refused; .*; rerun to resume"),
    ],
)
def test_failures_beyond_the_timeout_end_it(
    failure: httpx2.Response | Exception, complaint: str
) -> None:
    with pytest.raises(RemoteError, match=complaint):
        score(Service(failure), seconds=-1.0)


def test_invalid_images_too_many_images_and_rejections_are_distinguished() -> None:
    errors = [{"index": 1, "code": "invalid_image", "detail": "it is bad"}]
    one_score = httpx2.Response(200, json={"results": [VERDICT]})
    scored, reason = score(Service(problem(422, errors=errors), one_score))
    assert scored == ImageScore(Verdict(0.5, 0.25, None, None), None)
    assert reason == "it is bad"
    for status in (413, 500, 504):
        with pytest.raises(TooLarge, match=f"{status}: so it is"):
            score(Service(*[problem(status)] * 2))
    with pytest.raises(TooLarge, match="responded 413: <html>too large"):
        score(Service(*[httpx2.Response(413, text="<html>too large")] * 2))
    with pytest.raises(RemoteError, match=r"http://service/.* responded 403: so it is"):
        score(Service(problem(403)))


@pytest.mark.parametrize(
    "response",
    [
        httpx2.Response(200, text="<html>"),
        httpx2.Response(200, json={}),
        httpx2.Response(200, json=[]),
        httpx2.Response(200, json={"results": [VERDICT]}),
        httpx2.Response(200, json={"results": [{"score": 1}] * 2}),
        problem(422, errors=[{"index": 2, "detail": "who?"}]),
        problem(422, errors=["bad"]),
        httpx2.Response(403, headers={"Content-Type": "application/json"}, text="{"),
    ],
)
def test_an_invalid_response_ends_it(response: httpx2.Response) -> None:
    with pytest.raises(RemoteError, match=r"responded |sent "):
        score(Service(response))


@pytest.mark.parametrize("url", ["localhost:8000", "127.0.0.1", "http://", "http://[::1", ""])
def test_an_invalid_url_ends_it(url: str) -> None:
    with pytest.raises(InvalidParameter, match="is not a URL"):
        remote_scorer.connect(url, None)


@pytest.mark.parametrize("key", ["secret\n", "gehéim"])
def test_an_invalid_key_ends_it(key: str) -> None:
    with pytest.raises(InvalidParameter, match="the key in AE_API_KEY"):
        remote_scorer.connect("http://service", key)


def card_of(response: httpx2.Response, version: str | None = None) -> tuple[ScoringCard, str]:
    service = Service(response)
    found = call(service, lambda client: fetch_card(client, "m", version))
    return found, service.requests[0].url.path


def of_model(**changes: Any) -> httpx2.Response:
    document = {"version": 7, "capabilities": ["anomaly-score"], "calibration": {"images": 31}}
    return httpx2.Response(200, json=document | changes)


def test_the_card_holds_the_version_and_the_number_of_calibration_images() -> None:
    assert card_of(of_model()) == (ScoringCard("7", 31), "/v1/models/m")
    assert card_of(of_model(), "7") == (ScoringCard("7", 31), "/v1/models/m/versions/7")


def test_a_model_that_the_service_does_not_have_is_an_error() -> None:
    with pytest.raises(RemoteError, match="responded 404: so it is"):
        card_of(problem(404))


def test_a_model_that_cannot_score_names_its_operations() -> None:
    with pytest.raises(OperationNotSupported, match=r"m was not trained to .*; it can: encode"):
        card_of(of_model(capabilities=["encode"], calibration=None))


@pytest.mark.parametrize(
    "response",
    [httpx2.Response(200, text="<html>"), of_model(calibration=None)],
)
def test_an_invalid_card_ends_it(response: httpx2.Response) -> None:
    with pytest.raises(RemoteError, match="sent an invalid response"):
        card_of(response)


def pictured(text: bytes) -> httpx2.Response:
    result = VERDICT | {"heatmap": base64.b64encode(text).decode()}
    return httpx2.Response(200, json={"results": [result, result]})


@pytest.mark.parametrize(
    ("pictures", "requested"),
    [
        (Pictures(), [None]),
        (Pictures(heatmap=True), ["true"]),
        (Pictures(overlay=True), ["overlay"]),
        (Pictures(heatmap=True, overlay=True), ["true", "overlay"]),
    ],
)
def test_a_request_is_made_for_each_picture(
    pictures: Pictures, requested: list[str | None]
) -> None:
    service = Service(*(pictured(value.encode()) if value else SCORES for value in requested))
    found = score(service, pictures=pictures)
    verdict = Verdict(0.5, 0.25, None, None)
    heatmap = b"true" if pictures.heatmap else None
    overlay = b"overlay" if pictures.overlay else None
    assert found == [ImageScore(verdict, heatmap, overlay)] * 2
    assert [request.url.params.get("heatmap") for request in service.requests] == requested
