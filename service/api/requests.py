"""Request bodies: bytes of several media types to images and latents, none of which is decoded here."""

import asyncio
import base64
import binascii
import io
import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import pydantic_core
from multipart import MultipartError, PushMultipartParser, parse_options_header
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from bundle import imaging
from service.api.errors import MalformedRequest, PayloadTooLarge, UnsupportedMediaType
from service.errors import InvalidImage, InvalidItems, InvalidLatents, InvalidParameter
from service.inference.session import Array
from service.operations import EncodedImages, Latents, check_count, each
from service.scheduling.executor import Upload

Options = TypeVar("Options", bound=BaseModel)
Result = TypeVar("Result")

JSON, NPY, MULTIPART = "application/json", "application/x-npy", "multipart/form-data"
IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/bmp", "image/gif", "image/tiff")

LARGE = 64 * 1024  # bytes of a body from which on a thread is worth its cost

_DATA_URL = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)


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
        return EncodedImages(await _parse(body, lambda: _parts(body, options.get("boundary", ""), limits.max_items)))
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
        return await _parse(body, lambda: _ends_of(parse_json(body), limits.max_items))
    if kind == NPY:
        array = parse_npy(await read(request, limits))
        return (as_latents(array) if array.dtype.kind == "f" else EncodedImages(array)), {}
    return await read_images(request, limits), {}


def parse_json(body: bytes, known: Collection[str] | None = None) -> dict[str, Any]:
    """Raises MalformedRequest where the body is not JSON, InvalidParameter where it is no object of `known` keys."""
    try:
        # NaN and infinity are read, so that the check of the latents can say which vector holds them.
        document = pydantic_core.from_json(body, allow_inf_nan=True)
    except ValueError as error:
        raise MalformedRequest(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidParameter("the body must be a JSON object")
    if known is not None and (unknown := document.keys() - known):
        raise InvalidParameter(f"the body holds {min(unknown)[:50]!r}; known is {', '.join(sorted(known))} only")
    return document


def parse_npy(body: bytes) -> Array:
    """Read one NumPy array without copying or unpickling. Raises MalformedRequest where the body is none."""
    stream = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(stream)
    except Exception as error:  # the header is a Python literal: what is none raises many kinds
        raise MalformedRequest(f"the body is not an npy array: {str(error)[:200]}") from None
    if dtype.kind not in "biuf" or dtype.shape:
        raise MalformedRequest(f"the array holds {str(dtype)[:50]}; only numbers are read, and nothing is unpickled")
    data = memoryview(body)[stream.tell() :]
    whole = 0 < len(shape) <= 8 and all(type(size) is int and size >= 0 for size in shape)
    if not whole or max(shape) >= 2**31 or math.prod(shape) * dtype.itemsize != len(data):
        raise MalformedRequest(f"the header promises {dtype} {str(shape)[:100]}, but {len(data)} bytes follow it")
    return np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran else "C")


def images_of(document: dict[str, Any], most: int) -> EncodedImages:
    """The images of a JSON body."""
    values = _list_of(document, "images", most)
    return EncodedImages(each(len(values), lambda index: _from_base64(values[index])))


def latents_of(document: dict[str, Any], most: int) -> Latents:
    """The latents of a JSON body."""
    values = _list_of(document, "latents", most)
    return each(len(values), lambda index: _vector(values[index]))


def _ends_of(document: dict[str, Any], most: int) -> tuple[EncodedImages | Latents, dict[str, Any]]:
    if {"latents", "images"} <= document.keys():
        raise InvalidParameter("the body holds latents and images; send either")
    ends = latents_of(document, most) if "latents" in document else images_of(document, most)
    return ends, {key: value for key, value in document.items() if key not in ("latents", "images")}


async def _parse(body: bytes, work: Callable[[], Result]) -> Result:
    """Parse a small body at once, and a large one where it does not hold up other requests."""
    return work() if len(body) < LARGE else await asyncio.to_thread(work)


def as_latents(array: Array) -> Latents:
    """Raises InvalidItems where the array is not float32 with two dimensions."""
    if array.dtype.kind != "f" or array.dtype.itemsize != 4 or array.ndim != 2:
        wrong = InvalidLatents(f"latents must be float32 (n, latent_dim), not {array.dtype} {array.shape}")
        raise InvalidItems([(0, wrong)])
    return array.astype(np.float32, copy=False)


def _content_type(request: Incoming) -> tuple[str, dict[str, str]]:
    return _media_type(request.headers.get("content-type", ""))


@lru_cache(maxsize=64)
def _media_type(text: str) -> tuple[str, dict[str, str]]:
    kind, options = parse_options_header(text)
    return kind.lower(), options


def _unsupported(kind: str, allowed: tuple[str, ...]) -> UnsupportedMediaType:
    said = f"Content-Type {kind[:50]!r} is not read here" if kind else "Content-Type is missing"
    return UnsupportedMediaType(f"{said}; send one of {', '.join(allowed)}")


def _parts(body: bytes, boundary: str, most: int) -> list[bytes]:
    """The parts named `images`. Raises MalformedRequest where the body is damaged or holds other parts."""
    images: list[bytes] = []
    chunks: list[bytes] = []
    try:
        with PushMultipartParser(boundary) as parser:
            for event in parser.parse(body):
                if event is None:
                    images.append(b"".join(chunks))
                    check_count(len(images), most)
                elif isinstance(event, bytes | bytearray):
                    chunks.append(bytes(event))
                elif event.name == "images":
                    chunks = []
                else:
                    raise MalformedRequest(f"part {event.name[:50]!r} is not known; name the file parts 'images'")
    except MultipartError as error:
        raise MalformedRequest(f"the body is not multipart/form-data: {error}") from None
    return images


def _list_of(document: dict[str, Any], key: str, most: int) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise InvalidParameter(f"the body must hold a list under {key!r}")
    check_count(len(value), most)
    return value


def _from_base64(text: Any) -> bytes:
    if not isinstance(text, str):
        raise InvalidImage("an image in JSON is a string: base64, or a data: URL that holds base64")
    if prefix := _DATA_URL.match(text):
        text = text[prefix.end() :]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidImage(f"the string is not base64: {error}") from None


def _vector(numbers: Any) -> Array:
    try:
        vector = np.asarray(numbers)
    except ValueError:  # nested to different depths
        vector = np.asarray(None)
    if vector.dtype.kind not in "iuf" or vector.ndim != 1:
        raise InvalidLatents("a latent must be a list of numbers")
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
        return vector.astype(np.float32)


def options_of(model: type[Options], values: dict[str, Any]) -> Options:
    """Check the options in a JSON body. Raises InvalidParameter, which names each one at fault."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        details = [f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}" for wrong in error.errors()]
        raise InvalidParameter("; ".join(details)) from None
