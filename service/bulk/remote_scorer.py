"""A service that runs elsewhere."""

import asyncio
import base64
import logging
import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx2

from bundle.conformal import Verdict
from bundle.errors import InvalidParameter
from service.bulk.scorers import Faulty, Found, TooMuch
from service.errors import BulkError
from service.operations import Pictures, check_supported

logger = logging.getLogger(__name__)

PATIENCE = 300.0  # seconds for which a service that does not answer is asked again
FIRST_WAIT = 0.5  # seconds until then, where the service does not say how many; doubled each time
LONGEST_WAIT = 10.0


class RemoteError(BulkError):
    """The service that was asked cannot be had, or refuses."""


def connected(url: str, key: str | None) -> httpx2.AsyncClient:
    """A client of the service at `url`, with its API key if there is one. Raises InvalidParameter."""
    if not url.startswith(("http://", "https://")):
        raise InvalidParameter(f"{url!r} is no address: it begins with http:// or https://")
    if key is not None and not (key.isascii() and key.isprintable()):
        raise InvalidParameter(
            "the key in AE_API_KEY holds what no key does; is there an end of line in it?"
        )
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        return httpx2.AsyncClient(
            base_url=url, headers=headers, timeout=httpx2.Timeout(60.0, connect=10.0)
        )
    except httpx2.InvalidURL as error:
        raise InvalidParameter(f"{url!r} is no address: {error}") from None


class Card(NamedTuple):
    """The version of a model, and the number of images it was calibrated on."""

    version: str
    calibration_images: int


async def card(client: httpx2.AsyncClient, model: str, version: str | None) -> Card:
    """The card of a model's version, or of its newest.

    Raises RemoteError if the service does not have it, OperationNotSupported if it cannot score.
    """
    path = _path(model) if version is None else f"{_path(model)}/versions/{version}"
    answer = await _asked(client, "GET", path, PATIENCE)
    if answer.status_code != 200:
        raise RemoteError(_said(answer))
    try:
        document = answer.json()
        check_supported(model, "anomaly-score", document["capabilities"])
        return Card(str(document["version"]), int(document["calibration"]["images"]))
    except (ValueError, KeyError, TypeError) as error:
        raise _no_answer(answer, error) from None


class Remote:
    """One version of a model of a running service."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        model: str,
        version: str,
        rate: float,
        pictures: Pictures,
        *,
        patience: float = PATIENCE,
    ) -> None:
        self._client, self._patience, self._pictures = client, patience, pictures
        self._path = f"{_path(model)}/versions/{version}/anomaly-score"
        self._rate = str(rate)

    async def score(self, images: Sequence[bytes]) -> list[Found]:
        """As `Scorer.score`; one request for each picture, because a response holds one."""
        found: list[Found] = []
        if self._pictures.heatmap or not self._pictures.overlay:
            found = await self._score(images, str(self._pictures.heatmap).lower())
        if not self._pictures.overlay:
            return found
        drawn = await self._score(images, "overlay")
        if not found:
            return [each._replace(heatmap=None, overlay=each.heatmap) for each in drawn]
        pairs = zip(found, drawn, strict=True)
        return [each._replace(overlay=other.heatmap) for each, other in pairs]

    async def _score(self, images: Sequence[bytes], heatmap: str) -> list[Found]:
        """Ask with a value of the parameter `heatmap`; its picture stands in `Found.heatmap`."""
        query = {"false_positive_rate": self._rate, "heatmap": heatmap}
        files = [("images", (str(index), image)) for index, image in enumerate(images)]
        body = {"params": query, "files": files}
        answer = await _asked(self._client, "POST", self._path, self._patience, **body)
        try:
            if answer.status_code != 200:
                raise _refusal(answer, len(images))
            found = [_found(result, heatmap != "false") for result in answer.json()["results"]]
        except (ValueError, KeyError, TypeError) as error:
            raise _no_answer(answer, error) from None
        if len(found) != len(images):
            raise RemoteError(
                f"{answer.request.url} answers {len(found)} results for {len(images)} images"
            )
        return found


def _found(result: dict[str, Any], pictured: bool) -> Found:
    verdict = Verdict(result["score"], result["p_value"], result["threshold"], result["is_anomaly"])
    return Found(verdict, base64.b64decode(result["heatmap"]) if pictured else None)


def _no_answer(answer: httpx2.Response, error: Exception) -> RemoteError:
    url = answer.request.url
    return RemoteError(f"{url} answers what is no answer of this service: {error!r}")


async def _asked(
    client: httpx2.AsyncClient, method: str, path: str, patience: float, **request: Any
) -> httpx2.Response:
    """The answer of a service, which is asked again where it is full, not ready, or cannot be reached.

    Raises RemoteError where that lasts for `patience` seconds.
    """
    until = time.monotonic() + patience
    wait = FIRST_WAIT
    while True:
        try:
            answer = await client.request(method, path, **request)
        except (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError) as error:
            raise RemoteError(f"{client.base_url} cannot be asked: {error}") from None
        except httpx2.TransportError as error:
            said = f"{type(error).__name__} {error}".strip()
            logger.warning(
                "%s: %s; it is asked again for up to %.0f s", client.base_url, said, patience
            )
        else:
            if answer.status_code not in (429, 502, 503):
                return answer
            said = f"it answers {answer.status_code} {_problem(answer).get('detail', '')}".strip()
            after = answer.headers.get("retry-after", "")
            wait = float(after) if after.isdecimal() else wait
            if answer.status_code != 429:
                logger.warning(
                    "%s: %s; it is asked again for up to %.0f s", client.base_url, said, patience
                )
        if time.monotonic() + wait > until:
            raise RemoteError(f"{client.base_url}: {said}; the same command goes on from here")
        await asyncio.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT)


def _path(model: str) -> str:
    return f"/v1/models/{quote(model, safe='')}"


def _refusal(answer: httpx2.Response, count: int) -> Exception:
    """What to make of an answer that holds no scores. Raises what other answers than the service's own lead to."""
    if items := _problem(answer).get("errors"):
        faults = {int(item["index"]): str(item["detail"]) for item in items}
        if not faults.keys() <= set(range(count)):
            raise ValueError(f"of {count} images those at {sorted(faults)} are at fault")
        return Faulty(faults)
    # An image can be too large, take too long or meet a defect; which one it is shows when fewer are sent.
    return (
        TooMuch(_said(answer))
        if answer.status_code in (413, 500, 504)
        else RemoteError(_said(answer))
    )


def _said(answer: httpx2.Response) -> str:
    return f"{answer.request.url} answers {answer.status_code}: {_problem(answer).get('detail', answer.text[:200])}"


def _problem(answer: httpx2.Response) -> dict[str, Any]:
    if "json" not in answer.headers.get("content-type", ""):
        return {}
    try:
        document = answer.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
