"""Request bodies: bytes of several media types to images and latents, none of which is decoded here."""

import base64
import binascii
import io
import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pydantic_core
from fastapi import Request
from multipart import MultipartError, PushMultipartParser, parse_options_header
from pydantic import BaseModel, ValidationError

from service.api.errors import MalformedRequest, PayloadTooLarge, UnsupportedMediaType
from service.errors import InvalidImage, InvalidItems, InvalidLatents, InvalidParameter, ItemError
from service.inference.session import Array
from service.operations import EncodedImages, Latents

Options = TypeVar("Options", bound=BaseModel)

JSON, NPY, MULTIPART = "application/json", "application/x-npy", "multipart/form-data"
IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/bmp", "image/gif", "image/tiff")

_DATA_URL = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)


async def read(request: Request, limit: int) -> bytes:
    """The body. Raises PayloadTooLarge as soon as more bytes than `limit` are announced or have come."""
    announced = request.headers.get("content-length", "")
    received = bytearray()
    if not (announced.isdecimal() and int(announced) > limit):
        async for chunk in request.stream():
            received += chunk
            if len(received) > limit:
                break
        else:
            return bytes(received)
    raise PayloadTooLarge(f"the body is larger than {limit} bytes; send fewer or smaller images at a time")


async def read_images(request: Request, limit: int) -> EncodedImages:
    """One encoded image, or several in multipart, JSON or an array."""
    kind, options = _content_type(request)
    if kind.startswith("image/"):
        return EncodedImages([await read(request, limit)])
    if kind == MULTIPART:
        return EncodedImages(_parts(await read(request, limit), options.get("boundary", "")))
    if kind == JSON:
        return images_of(parse_json(await read(request, limit)))
    if kind == NPY:
        return EncodedImages(parse_npy(await read(request, limit)))
    raise _unsupported(kind, (*IMAGE_TYPES, MULTIPART, JSON, NPY))


async def read_latents(request: Request, limit: int) -> Latents:
    """Latent vectors in JSON or an array."""
    kind, _ = _content_type(request)
    if kind == JSON:
        return latents_of(parse_json(await read(request, limit)))
    if kind == NPY:
        return as_latents(parse_npy(await read(request, limit)))
    raise _unsupported(kind, (JSON, NPY))


async def read_json(request: Request, limit: int) -> dict[str, Any]:
    """A JSON object; an empty body is an empty one."""
    kind, _ = _content_type(request)
    body = await read(request, limit)
    if not body:
        return {}
    if kind != JSON:
        raise _unsupported(kind, (JSON,))
    return parse_json(body)


async def read_ends(request: Request, limit: int) -> tuple[EncodedImages | Latents, dict[str, Any]]:
    """What to interpolate between, images or latents, and the options that a JSON body holds beside them."""
    kind, _ = _content_type(request)
    if kind == JSON:
        document = parse_json(await read(request, limit))
        ends = latents_of(document) if "latents" in document else images_of(document)
        return ends, {key: value for key, value in document.items() if key not in ("latents", "images")}
    if kind == NPY:
        array = parse_npy(await read(request, limit))
        return (as_latents(array) if array.dtype.kind == "f" else EncodedImages(array)), {}
    return await read_images(request, limit), {}


def parse_json(body: bytes) -> dict[str, Any]:
    """Raises MalformedRequest where the body is not JSON, and InvalidParameter where it is no object."""
    try:
        # NaN and infinity are read, so that the check of the latents can say which vector holds them.
        document = pydantic_core.from_json(body, allow_inf_nan=True)
    except ValueError as error:
        raise MalformedRequest(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidParameter("the body must be a JSON object")
    return document


def parse_npy(body: bytes) -> Array:
    """Read one NumPy array without copying or unpickling. Raises MalformedRequest where the body is none."""
    stream = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(stream)
    except ValueError as error:
        raise MalformedRequest(f"the body is not an npy array: {error}") from None
    if dtype.hasobject:
        raise MalformedRequest("the array holds Python objects, which are never unpickled")
    data = memoryview(body)[stream.tell() :]
    if math.prod(shape) * dtype.itemsize != len(data) or not shape:
        raise MalformedRequest(f"the header promises {dtype} {shape}, but {len(data)} bytes follow it")
    return np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran else "C")


def images_of(document: dict[str, Any]) -> EncodedImages:
    """The images of a JSON body."""
    return EncodedImages(_convert(_list_of(document, "images"), _from_base64))


def latents_of(document: dict[str, Any]) -> Latents:
    """The latents of a JSON body."""
    return _convert(_list_of(document, "latents"), _vector)


def as_latents(array: Array) -> Latents:
    """Raises InvalidItems where the array is not float32 with two dimensions."""
    if array.dtype.kind != "f" or array.dtype.itemsize != 4 or array.ndim != 2:
        wrong = InvalidLatents(f"latents must be float32 (n, latent_dim), not {array.dtype} {array.shape}")
        raise InvalidItems([(0, wrong)])
    return array.astype(np.float32, copy=False)


def _content_type(request: Request) -> tuple[str, dict[str, str]]:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    return kind.lower(), options


def _unsupported(kind: str, allowed: tuple[str, ...]) -> UnsupportedMediaType:
    said = f"Content-Type {kind!r} is not read here" if kind else "Content-Type is missing"
    return UnsupportedMediaType(f"{said}; send one of {', '.join(allowed)}")


def _parts(body: bytes, boundary: str) -> list[bytes]:
    """The parts named `images`. Raises MalformedRequest where the body is damaged or holds other parts."""
    images: list[bytes] = []
    chunks: list[bytes] = []
    try:
        with PushMultipartParser(boundary) as parser:
            for event in parser.parse(body):
                if event is None:
                    images.append(b"".join(chunks))
                elif isinstance(event, bytes | bytearray):
                    chunks.append(bytes(event))
                elif event.name == "images":
                    chunks = []
                else:
                    raise MalformedRequest(f"part {event.name!r} is not known; name the file parts 'images'")
    except MultipartError as error:
        raise MalformedRequest(f"the body is not multipart/form-data: {error}") from None
    return images


def _list_of(document: dict[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise InvalidParameter(f"the body must hold a list under {key!r}")
    return value


def _convert(values: list[Any], convert: Callable[[Any], Any]) -> list[Any]:
    converted, errors = [], []
    for index, value in enumerate(values):
        try:
            converted.append(convert(value))
        except ItemError as error:
            errors.append((index, error))
    if errors:
        raise InvalidItems(errors)
    return converted


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
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused as such
            return np.asarray(numbers, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        raise InvalidLatents("a latent must be a list of numbers") from None


def options_of(model: type[Options], values: dict[str, Any]) -> Options:
    """Check the options in a JSON body. Raises InvalidParameter, which names each one at fault."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        details = [f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}" for wrong in error.errors()]
        raise InvalidParameter("; ".join(details)) from None
