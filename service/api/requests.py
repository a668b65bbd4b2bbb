"""Bodies of requests, read within limits and parsed by their media type."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
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
    check_latents,
    parse_ends,
    parse_images,
    parse_json,
    parse_latents,
    parse_multipart,
    parse_npy,
    validate_options,
)
from service.operations import EncodedImages, Latents
from service.scheduling.admission import HeldBytes

Result = TypeVar("Result")
MAX_OPTION_BYTES = 64 * 1024  # of a body that holds only options
MIN_THREAD_BYTES = 64 * 1024  # a body of this size is parsed in a thread


@dataclass(frozen=True)
class BodyLimits:
    """Limits of a body: bytes, items, and seconds until it is complete."""

    max_bytes: int
    max_items: int
    timeout: float


class IncomingRequest:
    """Headers of a request, and the source of its body.

    Names of headers are in lower case; lines of the same name are joined.
    """

    __slots__ = ("complete", "headers", "receive", "upload")

    def __init__(self, scope: Scope, receive: Receive, upload: HeldBytes) -> None:
        self.headers: dict[str, str] = {}
        self.receive = receive
        self.upload = upload
        self.complete = False  # all of the body has been read
        for name, value in scope["headers"]:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            self.headers[key] = f"{self.headers[key]},{text}" if key in self.headers else text


async def read(
    request: IncomingRequest, limits: BodyLimits, codings: Collection[str] = ()
) -> bytes:
    """Read the body, which may have one of the `codings` and is not decompressed.

    Raises PayloadTooLarge as soon as more bytes than the limit are announced or received. Raises
    Overloaded as soon as they exceed the bytes in flight. Raises UnsupportedMediaType if the body
    is compressed, and ClientDisconnect if the client disconnects.
    """
    _check_headers(request, limits, codings)
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limits.max_bytes:
            raise build_too_large(limits.max_bytes)
        request.upload.add(len(chunks[-1]))
        more = message.get("more_body", False)
    request.complete = True
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _check_headers(request: IncomingRequest, limits: BodyLimits, codings: Collection[str]) -> None:
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity", *codings):
        raise UnsupportedMediaType(
            f"Content-Encoding {coding[:50]!r} is unsupported; send the body without it"
        )
    announced = request.headers.get("content-length", "")
    if announced.isdecimal():
        if len(announced) > 18 or int(announced) > limits.max_bytes:
            raise build_too_large(limits.max_bytes)
        request.upload.expect(int(announced))


def build_too_large(max_bytes: int) -> PayloadTooLarge:
    """Return the error of a body that is too large."""
    return PayloadTooLarge(f"the body is larger than {max_bytes} bytes; send less")


async def read_images(request: IncomingRequest, limits: BodyLimits) -> EncodedImages:
    """Read one encoded image, or several in multipart, JSON or npy.

    Raises UnsupportedMediaType, and the errors of `read` and of `parsing`.
    """
    media_type, options = _parse_content_type(request)
    if media_type.startswith("image/"):
        body = await read(request, limits)
        if media_type not in IMAGE_TYPES and not imaging.is_readable(body):
            raise _build_unsupported(media_type, IMAGE_TYPES)
        return EncodedImages([body])
    if media_type == MULTIPART:
        body = await read(request, limits)
        return EncodedImages(
            await parse(
                body, lambda: parse_multipart(body, options.get("boundary", ""), limits.max_items)
            )
        )
    if media_type == JSON:
        body = await read(request, limits)
        return await parse(
            body, lambda: parse_images(parse_json(body, {"images"}), limits.max_items)
        )
    if media_type == NPY:
        return EncodedImages(parse_npy(await read(request, limits)))
    raise _build_unsupported(media_type, (*IMAGE_TYPES, MULTIPART, JSON, NPY))


async def read_latents(request: IncomingRequest, limits: BodyLimits) -> Latents:
    """Read latent vectors in JSON or npy. Raises as `read_images` does."""
    media_type, _ = _parse_content_type(request)
    if media_type == JSON:
        body = await read(request, limits)
        return await parse(
            body, lambda: parse_latents(parse_json(body, {"latents"}), limits.max_items)
        )
    if media_type == NPY:
        return check_latents(parse_npy(await read(request, limits)))
    raise _build_unsupported(media_type, (JSON, NPY))


async def read_options(
    request: IncomingRequest, limits: BodyLimits, model: type[Options]
) -> Options:
    """Read options in a JSON object; an empty body gives the defaults. Raises InvalidParameter."""
    media_type, _ = _parse_content_type(request)
    body = await read(request, replace(limits, max_bytes=min(limits.max_bytes, MAX_OPTION_BYTES)))
    if body and media_type != JSON:
        raise _build_unsupported(media_type, (JSON,))
    return validate_options(model, parse_json(body) if body else {})


async def read_ends(
    request: IncomingRequest, limits: BodyLimits
) -> tuple[EncodedImages | Latents, dict[str, Any]]:
    """Read two images or latents to interpolate between, and the options of a JSON body."""
    media_type, _ = _parse_content_type(request)
    if media_type == JSON:
        body = await read(request, limits)
        return await parse(body, lambda: parse_ends(parse_json(body), limits.max_items))
    if media_type == NPY:
        array = parse_npy(await read(request, limits))
        return (check_latents(array) if array.dtype.kind == "f" else EncodedImages(array)), {}
    return await read_images(request, limits), {}


async def read_json(request: IncomingRequest, limits: BodyLimits) -> bytes:
    """Read a JSON body, without parsing it. Raises UnsupportedMediaType, and as `read` does."""
    media_type, _ = _parse_content_type(request)
    if media_type != JSON:
        raise _build_unsupported(media_type, (JSON,))
    return await read(request, limits)


async def parse(body: bytes, work: Callable[[], Result]) -> Result:
    """Parse a small body at once, and a large body in a thread, to not delay other requests."""
    return work() if len(body) < MIN_THREAD_BYTES else await asyncio.to_thread(work)


def _parse_content_type(request: IncomingRequest) -> tuple[str, dict[str, str]]:
    return _parse_media_type(request.headers.get("content-type", ""))


@lru_cache(maxsize=64)
def _parse_media_type(text: str) -> tuple[str, dict[str, str]]:
    media_type, options = parse_options_header(text)
    return media_type.lower(), options


def _build_unsupported(media_type: str, allowed: tuple[str, ...]) -> UnsupportedMediaType:
    problem = f"{media_type[:50]!r} is unsupported" if media_type else "is missing"
    return UnsupportedMediaType(f"Content-Type {problem}; send one of {', '.join(allowed)}")
