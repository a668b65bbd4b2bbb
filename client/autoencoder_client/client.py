"""Clients of the service, blocking and asynchronous, over one set of exchanges."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import httpx2

from autoencoder_client.errors import InvalidRequest, InvalidResponse, Unreachable
from autoencoder_client.exchanges import (
    Document,
    Exchange,
    Exchanges,
    Picture,
    Reply,
    Request,
)
from autoencoder_client.images import Images
from autoencoder_client.results import (
    Classification,
    Encoding,
    Floats,
    Pictures,
    Reconstruction,
    Sampling,
    Score,
    Scoring,
)
from autoencoder_client.retries import RETRIED, Retries

Result = TypeVar("Result")
Method = Literal["linear", "spherical"]
Progress = Callable[[int, int], object]  # images that are done, of all
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
PASSING = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ReadError,
    httpx2.WriteError,
    httpx2.RemoteProtocolError,
)
MAX_CONNECT_SECONDS = 10.0
FOLDER_CHUNK = 64  # images between two reports of progress


class FolderScores(NamedTuple):
    """Scores of the images of a folder, and the reasons of invalid images, by their paths."""

    scores: dict[Path, Score]
    failures: dict[Path, str]


class Client:
    """Client that waits for each response; for a `with` statement, or `close` it.

    Each method raises ServiceError if the service rejects the request, Unreachable if it does not
    respond for `retry_seconds`.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        retry_seconds: float = 300.0,
        retry_timeouts: bool = False,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        """Connect to the service at `url`, with an API key if it needs one.

        With `retry_timeouts`, a request is sent again if its response takes longer than `timeout`.
        """
        self._retry_seconds, self._retry_timeouts = retry_seconds, retry_timeouts
        self._exchanges = Exchanges()
        self._http = httpx2.Client(**_build_options(url, key, timeout), transport=transport)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def models(self) -> list[Document]:
        """Return the cards of all models."""
        return self._run(self._exchanges.models())

    def model(self, name: str) -> Document:
        """Return the card of a model, or of a version such as `cookies/versions/2`."""
        return self._run(self._exchanges.model(name))

    def encode(self, model: str, images: Images) -> Encoding:
        """Encode images to latents."""
        return self._run(self._exchanges.encode(model, images))

    def score(
        self,
        model: str,
        images: Images,
        false_positive_rate: float | None = None,
        picture: Picture | None = None,
    ) -> Scoring:
        """Score how anomalous images are; a picture comes with the regions of anomalies."""
        return self._run(self._exchanges.score(model, images, false_positive_rate, picture))

    def score_folder(
        self,
        model: str,
        folder: str | Path,
        false_positive_rate: float | None = None,
        progress: Progress = lambda *_: None,
    ) -> FolderScores:
        """Score the images of a folder and of its folders, in the order of their names."""
        paths, found = _find_images(folder), FolderScores({}, {})
        for chunk in _split(paths):
            _add(found, chunk, self.score(model, chunk, false_positive_rate))
            progress(len(found.scores) + len(found.failures), len(paths))
        return found

    def classify(self, model: str, images: Images) -> Classification:
        """Classify images."""
        return self._run(self._exchanges.classify(model, images))

    def reconstruct(self, model: str, images: Images) -> Reconstruction:
        """Encode and decode images."""
        return self._run(self._exchanges.reconstruct(model, images))

    def denoise(self, model: str, images: Images) -> Pictures:
        """Remove noise from images."""
        return self._run(self._exchanges.denoise(model, images))

    def decode(self, model: str, latents: Floats) -> Pictures:
        """Decode latents, float32 (n, latent_dim), to images."""
        return self._run(self._exchanges.decode(model, latents))

    def sample(
        self, model: str, count: int = 1, seed: int | None = None, temperature: float = 1.0
    ) -> Sampling:
        """Draw images; equal seeds give equal images."""
        return self._run(self._exchanges.sample(model, count, seed, temperature))

    def interpolate(
        self, model: str, ends: Images, steps: int = 8, method: Method = "linear"
    ) -> Sampling:
        """Walk from one image to another."""
        return self._run(self._exchanges.interpolate(model, ends, steps, method))

    def _run(self, exchange: Exchange[Result]) -> Result:
        step = _advance(exchange, None)
        while isinstance(step, Request):
            step = _advance(exchange, self._send(step))
        return step.value

    def _send(self, request: Request) -> Reply:
        retries = Retries(self._retry_seconds)
        while True:
            try:
                response = self._http.request(request.method, request.path, **_build(request))
            except httpx2.RequestError as error:
                wait = retries.next_wait(_check_passing(error, self._retry_timeouts))
            else:
                if response.status_code not in RETRIED:
                    return _read(response)
                wait = _next_wait(retries, response)
            time.sleep(wait)


class AsyncClient:
    """Client whose methods are awaited; otherwise as `Client`, for an `async with` statement."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        retry_seconds: float = 300.0,
        retry_timeouts: bool = False,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """Connect to the service at `url`, with an API key if it needs one.

        With `retry_timeouts`, a request is sent again if its response takes longer than `timeout`.
        """
        self._retry_seconds, self._retry_timeouts = retry_seconds, retry_timeouts
        self._exchanges = Exchanges()
        self._http = httpx2.AsyncClient(**_build_options(url, key, timeout), transport=transport)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def models(self) -> list[Document]:
        """Return the cards of all models."""
        return await self._run(self._exchanges.models())

    async def model(self, name: str) -> Document:
        """Return the card of a model, or of a version such as `cookies/versions/2`."""
        return await self._run(self._exchanges.model(name))

    async def encode(self, model: str, images: Images) -> Encoding:
        """Encode images to latents."""
        return await self._run(self._exchanges.encode(model, images))

    async def score(
        self,
        model: str,
        images: Images,
        false_positive_rate: float | None = None,
        picture: Picture | None = None,
    ) -> Scoring:
        """Score how anomalous images are; a picture comes with the regions of anomalies."""
        exchange = self._exchanges.score(model, images, false_positive_rate, picture)
        return await self._run(exchange)

    async def score_folder(
        self,
        model: str,
        folder: str | Path,
        false_positive_rate: float | None = None,
        progress: Progress = lambda *_: None,
    ) -> FolderScores:
        """Score the images of a folder and of its folders, in the order of their names."""
        paths, found = await asyncio.to_thread(_find_images, folder), FolderScores({}, {})
        for chunk in _split(paths):
            _add(found, chunk, await self.score(model, chunk, false_positive_rate))
            progress(len(found.scores) + len(found.failures), len(paths))
        return found

    async def classify(self, model: str, images: Images) -> Classification:
        """Classify images."""
        return await self._run(self._exchanges.classify(model, images))

    async def reconstruct(self, model: str, images: Images) -> Reconstruction:
        """Encode and decode images."""
        return await self._run(self._exchanges.reconstruct(model, images))

    async def denoise(self, model: str, images: Images) -> Pictures:
        """Remove noise from images."""
        return await self._run(self._exchanges.denoise(model, images))

    async def decode(self, model: str, latents: Floats) -> Pictures:
        """Decode latents, float32 (n, latent_dim), to images."""
        return await self._run(self._exchanges.decode(model, latents))

    async def sample(
        self, model: str, count: int = 1, seed: int | None = None, temperature: float = 1.0
    ) -> Sampling:
        """Draw images; equal seeds give equal images."""
        return await self._run(self._exchanges.sample(model, count, seed, temperature))

    async def interpolate(
        self, model: str, ends: Images, steps: int = 8, method: Method = "linear"
    ) -> Sampling:
        """Walk from one image to another."""
        return await self._run(self._exchanges.interpolate(model, ends, steps, method))

    async def _run(self, exchange: Exchange[Result]) -> Result:
        # In threads, because images are read, encoded and decoded there.
        step = await asyncio.to_thread(_advance, exchange, None)
        while isinstance(step, Request):
            step = await asyncio.to_thread(_advance, exchange, await self._send(step))
        return step.value

    async def _send(self, request: Request) -> Reply:
        retries = Retries(self._retry_seconds)
        while True:
            try:
                response = await self._http.request(request.method, request.path, **_build(request))
            except httpx2.RequestError as error:
                wait = retries.next_wait(_check_passing(error, self._retry_timeouts))
            else:
                if response.status_code not in RETRIED:
                    return _read(response)
                wait = _next_wait(retries, response)
            await asyncio.sleep(wait)


@dataclass(frozen=True)
class End(Generic[Result]):
    """The result of an exchange."""

    value: Result


def _advance(exchange: Exchange[Result], reply: Reply | None) -> Request | End[Result]:
    """Send the reply to an exchange, and return its next request or its result.

    Raises InvalidResponse if the exchange cannot read the reply.
    """
    try:
        return next(exchange) if reply is None else exchange.send(reply)
    except StopIteration as end:
        return End(end.value)
    except (LookupError, TypeError, ValueError, OSError) as error:
        if reply is None:
            raise
        raise InvalidResponse(
            f"{reply.url} sent an invalid response: {error!r}; check the URL"
        ) from error


def _build_options(url: str, key: str | None, timeout: float) -> dict[str, Any]:
    """Return the options of an HTTP client. Raises InvalidRequest."""
    try:
        base = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise InvalidRequest(f"{url!r} is not a URL: {error}") from None
    if base.scheme not in ("http", "https") or not base.host:
        raise InvalidRequest(f"{url!r} is not a URL; write it like http://127.0.0.1:8000")
    timeouts = httpx2.Timeout(timeout, connect=min(timeout, MAX_CONNECT_SECONDS))
    return {"base_url": base, "headers": _build_headers(key), "timeout": timeouts}


def _build_headers(key: str | None) -> dict[str, str]:
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()):
        raise InvalidRequest("the key is not printable ASCII; check it for an end of line")
    return {"Authorization": f"Bearer {key}"}


def _build(request: Request) -> dict[str, Any]:
    files = [("images", (str(index), image)) for index, image in enumerate(request.images)]
    return {"params": request.params, "json": request.document, "files": files or None}


def _read(response: httpx2.Response) -> Reply:
    request_id = response.headers.get("x-request-id", "")
    return Reply(response.status_code, response.content, request_id, str(response.request.url))


def _check_passing(error: httpx2.RequestError, timeouts: bool) -> Unreachable:
    """Return the error of a fault that may pass. Raises InvalidRequest or Unreachable for others.

    Timeouts of the response may pass if `timeouts`; the service may still work on the request.
    """
    text = f"{error.request.url}: {type(error).__name__} {error}".strip()
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError):
        raise InvalidRequest(f"{text}; check the URL") from None
    late = timeouts and isinstance(error, httpx2.TimeoutException)
    if not (late or isinstance(error, PASSING)) or "CERTIFICATE" in str(error):
        raise Unreachable(f"{text}; check the URL, and the service") from None
    return Unreachable(f"{text}; check the URL, and whether the service runs")


def _next_wait(retries: Retries, response: httpx2.Response) -> float:
    return retries.next_wait(_read(response).build_error(), response.headers.get("retry-after"))


def _find_images(folder: str | Path) -> list[Path]:
    if not Path(folder).is_dir():
        raise InvalidRequest(f"{folder} is no folder; name a folder of images")
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return sorted(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)


def _split(paths: Sequence[Path]) -> list[Sequence[Path]]:
    return [paths[start : start + FOLDER_CHUNK] for start in range(0, len(paths), FOLDER_CHUNK)]


def _add(found: FolderScores, paths: Sequence[Path], scored: Scoring) -> None:
    found.scores.update({paths[index]: score for index, score in scored.results.items()})
    found.failures.update({paths[index]: reason for index, reason in scored.failures.items()})
