import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from service.anomaly import Verdict
from service.bulk import remote
from service.bulk.remote import Remote, RemoteError, newest
from service.bulk.scorers import Faulty, Found, TooMuch
from service.errors import InvalidParameter

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


def score(service: Service, patience: float = 60.0) -> list[Found]:
    async def ask() -> list[Found]:
        async with httpx2.AsyncClient(base_url="http://service", transport=httpx2.MockTransport(service)) as client:
            return await Remote(client, "a model", "3", 0.05, heatmaps=False, patience=patience).score([b"one", b"two"])

    return asyncio.run(ask())


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.0)


def test_images_are_sent_together_and_verdicts_come_back() -> None:
    service = Service(SCORES)
    assert score(service) == [Found(Verdict(0.5, 0.25, None, None), None)] * 2
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
        (problem(429, {"Retry-After": "7"}), "it answers 429 so it is; the same command goes on"),
        (httpx2.ConnectError("refused"), "ConnectError refused; the same command goes on"),
    ],
)
def test_what_does_not_pass_ends_it(hindrance: httpx2.Response | Exception, said: str) -> None:
    with pytest.raises(RemoteError, match=said):
        score(Service(hindrance), patience=-1.0)


def test_images_at_fault_are_told_from_too_many_and_from_refusals() -> None:
    faults = [{"index": 1, "code": "invalid_image", "detail": "it is bad"}]
    with pytest.raises(Faulty) as faulty:
        score(Service(problem(422, errors=faults)))
    assert faulty.value.errors == {1: "it is bad"}
    for status in (413, 500, 504):
        with pytest.raises(TooMuch, match=f"{status}: so it is"):
            score(Service(problem(status)))
    with pytest.raises(TooMuch, match="answers 413: <html>too large"):
        score(Service(httpx2.Response(413, text="<html>too large")))
    with pytest.raises(RemoteError, match=r"http://service/.* answers 403: so it is"):
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
    with pytest.raises(RemoteError, match="answers "):
        score(Service(answer))


@pytest.mark.parametrize("url", ["localhost:8000", "127.0.0.1", "http://[::1", ""])
def test_what_is_no_address_is_said_at_once(url: str) -> None:
    with pytest.raises(InvalidParameter, match="is no address"):
        remote.connected(url, None)


@pytest.mark.parametrize("key", ["secret\n", "gehéim"])
def test_what_is_no_key_is_said_at_once(key: str) -> None:
    with pytest.raises(InvalidParameter, match="the key in AE_API_KEY"):
        remote.connected("http://service", key)


def test_a_model_that_the_service_does_not_have_is_an_error() -> None:
    async def ask(service: Service) -> str:
        async with httpx2.AsyncClient(base_url="http://service", transport=httpx2.MockTransport(service)) as client:
            return await newest(client, "m")

    assert asyncio.run(ask(Service(httpx2.Response(200, json={"version": 7})))) == "7"
    with pytest.raises(RemoteError, match="answers 404: so it is"):
        asyncio.run(ask(Service(problem(404))))
