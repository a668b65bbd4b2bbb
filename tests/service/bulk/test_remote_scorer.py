import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from bundle.conformal import Verdict
from bundle.errors import InvalidParameter
from service.bulk import remote_scorer
from service.bulk.remote_scorer import RemoteError, RemoteScorer, ScoringCard, fetch_card
from service.bulk.scorers import ImageScore, InvalidImages, TooLarge
from service.errors import OperationNotSupported
from service.operations import NO_PICTURES, Pictures

VERDICT = {"score": 0.5, "p_value": 0.25, "threshold": None, "is_anomaly": None}
SCORES = httpx2.Response(200, json={"results": [VERDICT, VERDICT]})


def problem(status: int, headers: dict[str, str] | None = None, **more: Any) -> httpx2.Response:
    document = {"status": status, "detail": "so it is", **more}
    return httpx2.Response(status, headers=headers, json=document)


class Service:
    """Gives these answers, in turn, and keeps the requests."""

    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self._answers: Iterator[httpx2.Response | Exception] = iter(answers)
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


def score(
    service: Service,
    timeout: float = 60.0,
    pictures: Pictures = NO_PICTURES,
) -> list[ImageScore]:
    async def ask() -> list[ImageScore]:
        async with httpx2.AsyncClient(
            base_url="http://service", transport=httpx2.MockTransport(service)
        ) as client:
            asked = RemoteScorer(client, "a model", "3", 0.05, pictures, timeout=timeout)
            return await asked.score([b"one", b"two"])

    return asyncio.run(ask())


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_scorer, "FIRST_WAIT_SECONDS", 0.0)


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
    "hindrance",
    [
        problem(429, {"Retry-After": "0"}),
        problem(503),
        httpx2.Response(502, text="<html>"),
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("slow"),
    ],
    ids=str,
)
def test_what_passes_is_waited_for(hindrance: httpx2.Response | Exception) -> None:
    service = Service(hindrance, hindrance, SCORES)
    assert len(score(service)) == 2
    assert len(service.requests) == 3


@pytest.mark.parametrize(
    ("hindrance", "said"),
    [
        (problem(429, {"Retry-After": "7"}), "it responded 429 so it is; rerun to resume"),
        (httpx2.ConnectError("refused"), "ConnectError refused; rerun to resume"),
    ],
)
def test_what_does_not_pass_ends_it(hindrance: httpx2.Response | Exception, said: str) -> None:
    with pytest.raises(RemoteError, match=said):
        score(Service(hindrance), timeout=-1.0)


def test_images_at_fault_are_told_from_too_many_and_from_refusals() -> None:
    faults = [{"index": 1, "code": "invalid_image", "detail": "it is bad"}]
    with pytest.raises(InvalidImages) as faulty:
        score(Service(problem(422, errors=faults)))
    assert faulty.value.errors == {1: "it is bad"}
    for status in (413, 500, 504):
        with pytest.raises(TooLarge, match=f"{status}: so it is"):
            score(Service(problem(status)))
    with pytest.raises(TooLarge, match="responded 413: <html>too large"):
        score(Service(httpx2.Response(413, text="<html>too large")))
    with pytest.raises(RemoteError, match=r"http://service/.* responded 403: so it is"):
        score(Service(problem(403)))


@pytest.mark.parametrize(
    "answer",
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
def test_what_is_no_answer_of_the_service_ends_it(answer: httpx2.Response) -> None:
    with pytest.raises(RemoteError, match=r"responded |sent "):
        score(Service(answer))


@pytest.mark.parametrize("url", ["localhost:8000", "127.0.0.1", "http://[::1", ""])
def test_what_is_no_address_is_said_at_once(url: str) -> None:
    with pytest.raises(InvalidParameter, match="is not a URL"):
        remote_scorer.connect(url, None)


@pytest.mark.parametrize("key", ["secret\n", "gehéim"])
def test_what_is_no_key_is_said_at_once(key: str) -> None:
    with pytest.raises(InvalidParameter, match="the key in AE_API_KEY"):
        remote_scorer.connect("http://service", key)


def card_of(answer: httpx2.Response, version: str | None = None) -> tuple[ScoringCard, str]:
    async def ask() -> ScoringCard:
        async with httpx2.AsyncClient(
            base_url="http://service", transport=httpx2.MockTransport(service)
        ) as client:
            return await fetch_card(client, "m", version)

    service = Service(answer)
    found = asyncio.run(ask())
    return found, service.requests[0].url.path


def of_model(**changes: Any) -> httpx2.Response:
    document = {"version": 7, "capabilities": ["anomaly-score"], "calibration": {"images": 31}}
    return httpx2.Response(200, json=document | changes)


def test_the_card_says_the_version_and_how_many_images_calibrated_it() -> None:
    assert card_of(of_model()) == (ScoringCard("7", 31), "/v1/models/m")
    assert card_of(of_model(), "7") == (ScoringCard("7", 31), "/v1/models/m/versions/7")


def test_a_model_that_the_service_does_not_have_is_an_error() -> None:
    with pytest.raises(RemoteError, match="responded 404: so it is"):
        card_of(problem(404))


def test_a_model_that_cannot_score_says_what_it_can() -> None:
    with pytest.raises(OperationNotSupported, match=r"m was not trained to .*; it can: encode"):
        card_of(of_model(capabilities=["encode"], calibration=None))


@pytest.mark.parametrize(
    "answer",
    [httpx2.Response(200, text="<html>"), of_model(calibration=None)],
)
def test_what_is_no_card_ends_it(answer: httpx2.Response) -> None:
    with pytest.raises(RemoteError, match="sent an invalid response"):
        card_of(answer)


def pictured(text: bytes) -> httpx2.Response:
    result = VERDICT | {"heatmap": base64.b64encode(text).decode()}
    return httpx2.Response(200, json={"results": [result, result]})


@pytest.mark.parametrize(
    ("pictures", "asked"),
    [
        (Pictures(), ["false"]),
        (Pictures(heatmap=True), ["true"]),
        (Pictures(overlay=True), ["overlay"]),
        (Pictures(heatmap=True, overlay=True), ["true", "overlay"]),
    ],
)
def test_a_request_is_made_for_each_picture(pictures: Pictures, asked: list[str]) -> None:
    service = Service(*(pictured(value.encode()) for value in asked))
    found = score(service, pictures=pictures)
    verdict = Verdict(0.5, 0.25, None, None)
    heatmap = b"true" if pictures.heatmap else None
    overlay = b"overlay" if pictures.overlay else None
    assert found == [ImageScore(verdict, heatmap, overlay)] * 2
    assert [request.url.params["heatmap"] for request in service.requests] == asked
