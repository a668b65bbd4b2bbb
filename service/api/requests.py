"""Request bodies: bytes of several media types to images and latents, none of which is decoded here."""

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
from service.scheduling.executor import Upload

Result = TypeVar("Result")
LARGE = 64 * 1024  # bytes of a body from which on a thread is worth its cost


@dataclass(frozen=True)
class BodyLimits:
    """What is read of a body before it is refused: bytes, items, and seconds until it is whole."""

    max_bytes: int
    max_items: int
    timeout: float


class Incoming:
    """A request: its headers, names in lower case and lines of one name joined, and where its body comes from."""

    __slots__ = ("headers", "receive", "upload", "whole")

    def __init__(self, scope: Scope, receive: Receive, upload: Upload) -> None:
        self.headers: dict[str, str] = {}
        self.receive = receive
        self.upload = upload
        self.whole = False  # whether all of the body has been read
        for name, value in scope["headers"]:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            self.headers[key] = f"{self.headers[key]},{text}" if key in self.headers else text


async def read(request: Incoming, limits: BodyLimits) -> bytes:
    """The body.

    Raises PayloadTooLarge as soon as more bytes than the limit are announced or have come, Overloaded as soon as there
    is no place for them, UnsupportedMediaType where they are compressed, and ClientDisconnect where the client leaves.
    """
    if coding := request.headers.get("content-encoding"):
        raise UnsupportedMediaType(f"Content-Encoding {coding[:50]!r} is not read here; send the body as it is")
    too_large = PayloadTooLarge(f"the body is larger than {limits.max_bytes} bytes; send fewer or smaller images")
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
        request.upload.take(len(chunks[-1]))
        more = message.get("more_body", False)
    request.whole = True
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def read_images(request: Incoming, limits: BodyLimits) -> EncodedImages:
    """One encoded image, or several in multipart, JSON or an array."""
    kind, options = _content_type(request)
    if kind.startswith("image/"):
        body = await read(request, limits)
        if kind not in IMAGE_TYPES and not imaging.is_readable(body):
            raise _unsupported(kind, IMAGE_TYPES)
        return EncodedImages([body])
    if kind == MULTIPART:
        body = await read(request, limits)
        return EncodedImages(await _parse(body, lambda: parts_of(body, options.get("boundary", ""), limits.max_items)))
    if kind == JSON:
        body = await read(request, limits)
        return await _parse(body, lambda: images_of(parse_json(body, {"images"}), limits.max_items))
    if kind == NPY:
        return EncodedImages(parse_npy(await read(request, limits)))
    raise _unsupported(kind, (*IMAGE_TYPES, MULTIPART, JSON, NPY))


async def read_latents(request: Incoming, limits: BodyLimits) -> Latents:
    """Latent vectors in JSON or an array."""
    kind, _ = _content_type(request)
    if kind == JSON:
        body = await read(request, limits)
        return await _parse(body, lambda: latents_of(parse_json(body, {"latents"}), limits.max_items))
    if kind == NPY:
        return as_latents(parse_npy(await read(request, limits)))
    raise _unsupported(kind, (JSON, NPY))


async def read_options(request: Incoming, limits: BodyLimits, model: type[Options]) -> Options:
    """A JSON object of options; an empty body is an empty one."""
    kind, _ = _content_type(request)
    body = await read(request, limits)
    if body and kind != JSON:
        raise _unsupported(kind, (JSON,))
    return options_of(model, parse_json(body) if body else {})


async def read_ends(request: Incoming, limits: BodyLimits) -> tuple[EncodedImages | Latents, dict[str, Any]]:
    """What to interpolate between, images or latents, and the options that a JSON body holds beside them."""
    kind, _ = _content_type(request)
    if kind == JSON:
        body = await read(request, limits)
        return await _parse(body, lambda: ends_of(parse_json(body), limits.max_items))
    if kind == NPY:
        array = parse_npy(await read(request, limits))
        return (as_latents(array) if array.dtype.kind == "f" else EncodedImages(array)), {}
    return await read_images(request, limits), {}


async def _parse(body: bytes, work: Callable[[], Result]) -> Result:
    """Parse a small body at once, and a large one where it does not hold up other requests."""
    return work() if len(body) < LARGE else await asyncio.to_thread(work)


def _content_type(request: Incoming) -> tuple[str, dict[str, str]]:
    return _media_type(request.headers.get("content-type", ""))


@lru_cache(maxsize=64)
def _media_type(text: str) -> tuple[str, dict[str, str]]:
    kind, options = parse_options_header(text)
    return kind.lower(), options


def _unsupported(kind: str, allowed: tuple[str, ...]) -> UnsupportedMediaType:
    said = f"Content-Type {kind[:50]!r} is not read here" if kind else "Content-Type is missing"
    return UnsupportedMediaType(f"{said}; send one of {', '.join(allowed)}")
