"""Scorer with a model of a running service."""

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
from service.bulk.scorers import ImageScore, InvalidImages, TooLarge
from service.errors import BulkError
from service.operations import Pictures, check_supported

logger = logging.getLogger(__name__)

MAX_RETRY_WAIT_SECONDS = 10.0


class RemoteError(BulkError):
    """The service is unavailable, rejects a request, or sends an invalid response."""


def connect(url: str, key: str | None) -> httpx2.AsyncClient:
    """Return a client of the service at `url`, with an API key if any. Raises InvalidParameter."""
    if not url.startswith(("http://", "https://")):
        raise InvalidParameter(f"--url {url!r} is not a URL; begin it with http:// or https://")
    if key is not None and not (key.isascii() and key.isprintable()):
        raise InvalidParameter(
            "the key in AE_API_KEY is not printable ASCII; check it for an end of line"
        )
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        return httpx2.AsyncClient(
            base_url=url, headers=headers, timeout=httpx2.Timeout(60.0, connect=10.0)
        )
    except httpx2.InvalidURL as error:
        raise InvalidParameter(f"--url {url!r} is not a URL: {error}") from None


class Retry(NamedTuple):
    """Seconds: of all retries, and of the first wait, which is doubled after each attempt."""

    timeout: float
    first_wait: float


RETRY = Retry(timeout=300.0, first_wait=0.5)  # unless the service sends Retry-After


class ScoringCard(NamedTuple):
    """The version of a model, and the number of its calibration images."""

    version: str
    calibration_images: int


async def fetch_card(client: httpx2.AsyncClient, model: str, version: str | None) -> ScoringCard:
    """Fetch the card of a model's version, or of its newest version.

    Raises RemoteError if it is unavailable, OperationNotSupported if the model cannot score.
    """
    path = _build_path(model) if version is None else f"{_build_path(model)}/versions/{version}"
    response = await _fetch(client, "GET", path, RETRY)
    if response.status_code != 200:
        raise RemoteError(_describe(response))
    try:
        document = response.json()
        check_supported(model, "anomaly-score", document["capabilities"])
        return ScoringCard(str(document["version"]), int(document["calibration"]["images"]))
    except (ValueError, KeyError, TypeError) as error:
        raise _build_invalid_response(response, error) from None


class RemoteScorer:
    """A scorer with one version of a model of a running service."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        model: str,
        version: str,
        rate: float,
        pictures: Pictures,
        *,
        retry: Retry = RETRY,
    ) -> None:
        """Score at the false positive rate `rate`."""
        self._client, self._retry, self._pictures = client, retry, pictures
        self._path = f"{_build_path(model)}/versions/{version}/anomaly-score"
        self._rate = str(rate)

    async def score(self, images: Sequence[bytes]) -> list[ImageScore]:
        """Score images, with one request for each picture, because a response holds only one.

        Raises as `Scorer.score` does.
        """
        scores: list[ImageScore] = []
        if self._pictures.heatmap or not self._pictures.overlay:
            scores = await self._score(images, str(self._pictures.heatmap).lower())
        if not self._pictures.overlay:
            return scores
        overlays = await self._score(images, "overlay")
        if not scores:
            return [each._replace(heatmap=None, overlay=each.heatmap) for each in overlays]
        pairs = zip(scores, overlays, strict=True)
        return [each._replace(overlay=other.heatmap) for each, other in pairs]

    async def _score(self, images: Sequence[bytes], heatmap: str) -> list[ImageScore]:
        """Score with a value of the parameter `heatmap`; `ImageScore.heatmap` holds the picture."""
        query = {"false_positive_rate": self._rate, "heatmap": heatmap}
        files = [("images", (str(index), image)) for index, image in enumerate(images)]
        body = {"params": query, "files": files}
        response = await _fetch(self._client, "POST", self._path, self._retry, **body)
        try:
            if response.status_code != 200:
                raise _build_rejection(response, len(images))
            pictured = heatmap != "false"
            scores = [_parse_score(result, pictured) for result in response.json()["results"]]
        except (ValueError, KeyError, TypeError) as error:
            raise _build_invalid_response(response, error) from None
        if len(scores) != len(images):
            raise RemoteError(
                f"{response.request.url} sent {len(scores)} results for {len(images)} images"
            )
        return scores


def _parse_score(result: dict[str, Any], pictured: bool) -> ImageScore:
    verdict = Verdict(result["score"], result["p_value"], result["threshold"], result["is_anomaly"])
    return ImageScore(verdict, base64.b64decode(result["heatmap"]) if pictured else None)


def _build_invalid_response(response: httpx2.Response, error: Exception) -> RemoteError:
    url = response.request.url
    return RemoteError(f"{url} sent an invalid response: {error!r}; check --url")


async def _fetch(
    client: httpx2.AsyncClient, method: str, path: str, retry: Retry, **request: Any
) -> httpx2.Response:
    """Send a request; retry if the service is overloaded, not ready, or unreachable.

    Raises RemoteError if no retry succeeds in time.
    """
    until, wait = time.monotonic() + retry.timeout, retry.first_wait
    while True:
        response, problem = await _try_once(client, method, path, **request)
        if response is not None:
            if response.status_code not in (429, 502, 503):
                return response
            after = response.headers.get("retry-after", "")
            wait = float(after) if after.isdecimal() else wait
        if response is None or response.status_code != 429:
            seconds = retry.timeout
            logger.warning("%s: %s; retrying for up to %.0f s", client.base_url, problem, seconds)
        if time.monotonic() + wait > until:
            raise RemoteError(f"{client.base_url}: {problem}; rerun to resume")
        await asyncio.sleep(wait)
        wait = min(2 * wait, MAX_RETRY_WAIT_SECONDS)


async def _try_once(
    client: httpx2.AsyncClient, method: str, path: str, **request: Any
) -> tuple[httpx2.Response | None, str]:
    """Return the response, or None if the service is unreachable; and a description."""
    try:
        response = await client.request(method, path, **request)
    except (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError) as error:
        raise RemoteError(f"{client.base_url} is unreachable: {error}; check --url") from None
    except httpx2.TransportError as error:
        return None, f"{type(error).__name__} {error}".strip()
    detail = _read_problem(response).get("detail", "") if response.is_error else ""
    return response, f"it responded {response.status_code} {detail}".strip()


def _build_path(model: str) -> str:
    return f"/v1/models/{quote(model, safe='')}"


def _build_rejection(response: httpx2.Response, count: int) -> Exception:
    """Return the error of a response without scores. Raises ValueError if it is invalid."""
    if items := _read_problem(response).get("errors"):
        errors = {int(item["index"]): str(item["detail"]) for item in items}
        if not errors.keys() <= set(range(count)):
            raise ValueError(f"images {sorted(errors)} of {count} are invalid")
        return InvalidImages(errors)
    # One image can be too large, too slow or cause a defect; smaller requests will show which.
    if response.status_code in (413, 500, 504):
        return TooLarge(_describe(response))
    return RemoteError(_describe(response))


def _describe(response: httpx2.Response) -> str:
    detail = _read_problem(response).get("detail", response.text[:200])
    return f"{response.request.url} responded {response.status_code}: {detail}"


def _read_problem(response: httpx2.Response) -> dict[str, Any]:
    if "json" not in response.headers.get("content-type", ""):
        return {}
    try:
        document = response.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
