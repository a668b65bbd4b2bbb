"""Bodies of requests: read within bounds, and split into encoded images or latents by their media type."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from multipart import parse_options_header
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from bundle import imaging
from service.api.errors import PayloadTooLarge, UnsupportedMediaType
from service.api.media_types import IMAGE_TYPES, JSON, MULTIPART, NPY
from service.api.parsing import (
    Options,
    as_latents,
    ends_of,
    images_of,
    latents_of,
    options_of,
    parse_json,
    parse_npy,
    parts_of,
)
from service.operations import EncodedImages, Latents
from service.scheduling.admission import Upload

Result = TypeVar("Result")
THREAD_BYTES = 64 * 1024  # of a body that is parsed in a thread


@dataclass(frozen=True)
class BodyLimits:
    """Bounds of a body: bytes, items, and seconds until it is complete."""

    max_bytes: int
    max_items: int
    timeout: float


class IncomingRequest:
    """Headers of a request, with names in lower case and lines of one name joined, and the source of its body."""

    __slots__ = ("complete", "headers", "receive", "upload")

    def __init__(self, scope: Scope, receive: Receive, upload: Upload) -> None:
        self.headers: dict[str, str] = {}
        self.receive = receive
        self.upload = upload
        self.complete = False  # all of the body has been read
        for name, value in scope["headers"]:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            self.headers[key] = f"{self.headers[key]},{text}" if key in self.headers else text


async def read(request: IncomingRequest, limits: BodyLimits) -> bytes:
    """The body.

    Raises PayloadTooLarge as soon as more bytes than the limit are announced or received, Overloaded as soon as they
    exceed the bytes in flight, UnsupportedMediaType if they are compressed, and ClientDisconnect if the client leaves.
    """
    if coding := request.headers.get("content-encoding"):
        raise UnsupportedMediaType(
            f"Content-Encoding {coding[:50]!r} is not read here; send the body as it is"
        )
    too_large = PayloadTooLarge(
        f"the body is larger than {limits.max_bytes} bytes; send fewer or smaller images"
    )
    announced = request.headers.get("content-length", "")
    if announced.isdecimal():
        if len(announced) > 18 or int(announced) > limits.max_bytes:
            raise too_large
        request.upload.expect(int(announced))
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limits.max_bytes:
            raise too_large
        request.upload.add(len(chunks[-1]))
        more = message.get("more_body", False)
    request.complete = True
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def read_images(request: IncomingRequest, limits: BodyLimits) -> EncodedImages:
    """One encoded image, or several in multipart, JSON or an array."""
    media_type, options = _content_type(request)
    if media_type.startswith("image/"):
        body = await read(request, limits)
        if media_type not in IMAGE_TYPES and not imaging.is_readable(body):
            raise _unsupported(media_type, IMAGE_TYPES)
        return EncodedImages([body])
    if media_type == MULTIPART:
        body = await read(request, limits)
        return EncodedImages(
            await _parse(
                body, lambda: parts_of(body, options.get("boundary", ""), limits.max_items)
            )
        )
    if media_type == JSON:
        body = await read(request, limits)
        return await _parse(body, lambda: images_of(parse_json(body, {"images"}), limits.max_items))
    if media_type == NPY:
        return EncodedImages(parse_npy(await read(request, limits)))
    raise _unsupported(media_type, (*IMAGE_TYPES, MULTIPART, JSON, NPY))


async def read_latents(request: IncomingRequest, limits: BodyLimits) -> Latents:
    """Latent vectors in JSON or an array."""
    media_type, _ = _content_type(request)
    if media_type == JSON:
        body = await read(request, limits)
        return await _parse(
            body, lambda: latents_of(parse_json(body, {"latents"}), limits.max_items)
        )
    if media_type == NPY:
        return as_latents(parse_npy(await read(request, limits)))
    raise _unsupported(media_type, (JSON, NPY))


async def read_options(
    request: IncomingRequest, limits: BodyLimits, model: type[Options]
) -> Options:
    """A JSON object of options; an empty body is an empty one."""
    media_type, _ = _content_type(request)
    body = await read(request, limits)
    if body and media_type != JSON:
        raise _unsupported(media_type, (JSON,))
    return options_of(model, parse_json(body) if body else {})


async def read_ends(
    request: IncomingRequest, limits: BodyLimits
) -> tuple[EncodedImages | Latents, dict[str, Any]]:
    """The two images or latents to interpolate between, and the options of a JSON body."""
    media_type, _ = _content_type(request)
    if media_type == JSON:
        body = await read(request, limits)
        return await _parse(body, lambda: ends_of(parse_json(body), limits.max_items))
    if media_type == NPY:
        array = parse_npy(await read(request, limits))
        return (as_latents(array) if array.dtype.kind == "f" else EncodedImages(array)), {}
    return await read_images(request, limits), {}


async def _parse(body: bytes, work: Callable[[], Result]) -> Result:
    """Parse a small body at once, and a large one in a thread, where it does not delay other requests."""
    return work() if len(body) < THREAD_BYTES else await asyncio.to_thread(work)


def _content_type(request: IncomingRequest) -> tuple[str, dict[str, str]]:
    return _media_type(request.headers.get("content-type", ""))


@lru_cache(maxsize=64)
def _media_type(text: str) -> tuple[str, dict[str, str]]:
    media_type, options = parse_options_header(text)
    return media_type.lower(), options


def _unsupported(media_type: str, allowed: tuple[str, ...]) -> UnsupportedMediaType:
    said = (
        f"Content-Type {media_type[:50]!r} is not read here"
        if media_type
        else "Content-Type is missing"
    )
    return UnsupportedMediaType(f"{said}; send one of {', '.join(allowed)}")
