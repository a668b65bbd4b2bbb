"""Clients of the service, blocking and asynchronous, over one set of exchanges."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import httpx2

from autoencoder_client.errors import InvalidRequest, Unreachable
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
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        """Connect to the service at `url`, with an API key if it needs one."""
        self._retry_seconds = retry_seconds
        self._exchanges = Exchanges()
        self._http = httpx2.Client(
            base_url=url, headers=_build_headers(key), timeout=timeout, transport=transport
        )

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
                time.sleep(retries.next_wait(_describe(error)))
                continue
            if response.status_code not in RETRIED:
                return _read(response)
            time.sleep(_next_wait(retries, response))


class AsyncClient:
    """Client whose methods are awaited; otherwise as `Client`, for an `async with` statement."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        retry_seconds: float = 300.0,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """Connect to the service at `url`, with an API key if it needs one."""
        self._retry_seconds = retry_seconds
        self._exchanges = Exchanges()
        self._http = httpx2.AsyncClient(
            base_url=url, headers=_build_headers(key), timeout=timeout, transport=transport
        )

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
                await asyncio.sleep(retries.next_wait(_describe(error)))
                continue
            if response.status_code not in RETRIED:
                return _read(response)
            await asyncio.sleep(_next_wait(retries, response))


@dataclass(frozen=True)
class End(Generic[Result]):
    """The result of an exchange."""

    value: Result


def _advance(exchange: Exchange[Result], reply: Reply | None) -> Request | End[Result]:
    """Send the reply to an exchange, and return its next request or its result."""
    try:
        return next(exchange) if reply is None else exchange.send(reply)
    except StopIteration as end:
        return End(end.value)


def _build_headers(key: str | None) -> dict[str, str]:
    if key is None:
        return {}
    if not (key.isascii() and key.isprintable()):
        raise InvalidRequest("the key is not printable ASCII; check it for an end of line")
    return {"Authorization": f"Bearer {key}"}


def _build(request: Request) -> dict[str, Any]:
    files = [("images", (str(index), image)) for index, image in enumerate(request.images)]
    return {"params": request.params, "json": request.document, "files": files or None}


def _read(response: httpx2.Response) -> Reply:
    request_id = response.headers.get("x-request-id", "")
    return Reply(response.status_code, response.content, request_id)


def _describe(error: httpx2.RequestError) -> str:
    """Describe an error that may pass. Raises InvalidRequest or Unreachable for other errors.

    After a timeout of the response, the service may still work on the request.
    """
    text = f"{type(error).__name__} {error}".strip()
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError):
        raise InvalidRequest(f"{text}; check the URL") from None
    if not isinstance(error, PASSING) or "CERTIFICATE" in text:
        raise Unreachable(f"{text}; check the URL, and the service") from None
    return f"{text}; check the URL, and whether the service runs"


def _next_wait(retries: Retries, response: httpx2.Response) -> float:
    reply = _read(response)
    try:
        return retries.next_wait("", response.headers.get("retry-after"))
    except Unreachable:
        raise reply.build_error() from None


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
