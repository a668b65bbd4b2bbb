import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from bundle.conformal import Verdict
from bundle.errors import InvalidParameter
from service.bulk import remote_scorer
from service.bulk.remote_scorer import (
    RemoteError,
    RemoteScorer,
    Retry,
    ScoringCard,
    fetch_card,
)
from service.bulk.scorers import ImageScore, InvalidImages, TooLarge
from service.errors import OperationNotSupported
from service.operations import NO_PICTURES, Pictures

VERDICT = {"score": 0.5, "p_value": 0.25, "threshold": None, "is_anomaly": None}
SCORES = httpx2.Response(200, json={"results": [VERDICT, VERDICT]})


def problem(status: int, headers: dict[str, str] | None = None, **more: Any) -> httpx2.Response:
    document = {"status": status, "detail": "so it is", **more}
    return httpx2.Response(status, headers=headers, json=document)


class Service:
    """Returns these responses in order, and keeps the requests."""

    def __init__(self, *responses: httpx2.Response | Exception) -> None:
        self._responses: Iterator[httpx2.Response | Exception] = iter(responses)
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        response = next(self._responses)
        if isinstance(response, Exception):
            raise response
        return response


def score(
    service: Service,
    timeout: float = 60.0,
    pictures: Pictures = NO_PICTURES,
) -> list[ImageScore]:
    async def send() -> list[ImageScore]:
        async with httpx2.AsyncClient(
            base_url="http://service", transport=httpx2.MockTransport(service)
        ) as client:
            retry = Retry(timeout, first_wait=0.0)
            scorer = RemoteScorer(client, "a model", "3", 0.05, pictures, retry=retry)
            return await scorer.score([b"one", b"two"])

    return asyncio.run(send())


def test_images_are_sent_together_and_verdicts_come_back() -> None:
    service = Service(SCORES)
    assert score(service) == [ImageScore(Verdict(0.5, 0.25, None, None), None)] * 2
    (request,) = service.requests
    assert request.url.raw_path == (
        b"/v1/models/a%20model/versions/3/anomaly-score?false_positive_rate=0.05&heatmap=false"
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


@pytest.mark.parametrize(
    ("failure", "complaint"),
    [
        (problem(429, {"Retry-After": "7"}), "it responded 429 so it is; rerun to resume"),
        (httpx2.ConnectError("refused"), "ConnectError refused; rerun to resume"),
    ],
)
def test_failures_beyond_the_timeout_end_it(
    failure: httpx2.Response | Exception, complaint: str
) -> None:
    with pytest.raises(RemoteError, match=complaint):
        score(Service(failure), timeout=-1.0)


def test_invalid_images_too_many_images_and_rejections_are_distinguished() -> None:
    errors = [{"index": 1, "code": "invalid_image", "detail": "it is bad"}]
    with pytest.raises(InvalidImages) as caught:
        score(Service(problem(422, errors=errors)))
    assert caught.value.errors == {1: "it is bad"}
    for status in (413, 500, 504):
        with pytest.raises(TooLarge, match=f"{status}: so it is"):
            score(Service(problem(status)))
    with pytest.raises(TooLarge, match="responded 413: <html>too large"):
        score(Service(httpx2.Response(413, text="<html>too large")))
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


@pytest.mark.parametrize("url", ["localhost:8000", "127.0.0.1", "http://[::1", ""])
def test_an_invalid_url_ends_it(url: str) -> None:
    with pytest.raises(InvalidParameter, match="is not a URL"):
        remote_scorer.connect(url, None)


@pytest.mark.parametrize("key", ["secret\n", "gehéim"])
def test_an_invalid_key_ends_it(key: str) -> None:
    with pytest.raises(InvalidParameter, match="the key in AE_API_KEY"):
        remote_scorer.connect("http://service", key)


def card_of(response: httpx2.Response, version: str | None = None) -> tuple[ScoringCard, str]:
    async def send() -> ScoringCard:
        async with httpx2.AsyncClient(
            base_url="http://service", transport=httpx2.MockTransport(service)
        ) as client:
            return await fetch_card(client, "m", version)

    service = Service(response)
    found = asyncio.run(send())
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
        (Pictures(), ["false"]),
        (Pictures(heatmap=True), ["true"]),
        (Pictures(overlay=True), ["overlay"]),
        (Pictures(heatmap=True, overlay=True), ["true", "overlay"]),
    ],
)
def test_a_request_is_made_for_each_picture(pictures: Pictures, requested: list[str]) -> None:
    service = Service(*(pictured(value.encode()) for value in requested))
    found = score(service, pictures=pictures)
    verdict = Verdict(0.5, 0.25, None, None)
    heatmap = b"true" if pictures.heatmap else None
    overlay = b"overlay" if pictures.overlay else None
    assert found == [ImageScore(verdict, heatmap, overlay)] * 2
    assert [request.url.params["heatmap"] for request in service.requests] == requested
