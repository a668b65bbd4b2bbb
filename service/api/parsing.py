"""Parsers of request bodies."""

import base64
import binascii
import io
import math
import re
from collections.abc import Collection
from typing import Any, TypeVar

import numpy as np
import pydantic_core
from multipart import MultipartError, PushMultipartParser
from pydantic import BaseModel, ValidationError

from bundle.errors import InvalidImage, InvalidParameter
from bundle.tensors import Array
from service.api.errors import MalformedRequest
from service.errors import InvalidItems, InvalidLatents
from service.operations import EncodedImages, Latents, check_count, each

Options = TypeVar("Options", bound=BaseModel)
_DATA_URL = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)


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
        raise InvalidParameter(
            f"the body holds {min(unknown)[:50]!r}; known is {', '.join(sorted(known))} only"
        )
    return document


def parse_npy(body: bytes) -> Array:
    """Read one NumPy array without copying or unpickling. Raises MalformedRequest where the body is none."""
    stream = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(stream)
        reader = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = reader(stream)
    except Exception as error:  # the header is a Python literal: what is none raises many kinds
        raise MalformedRequest(f"the body is not an npy array: {str(error)[:200]}") from None
    if dtype.kind not in "biuf" or dtype.shape:
        raise MalformedRequest(
            f"the array holds {str(dtype)[:50]}; only numbers are read, and nothing is unpickled"
        )
    data = memoryview(body)[stream.tell() :]
    whole = 0 < len(shape) <= 8 and all(type(size) is int and size >= 0 for size in shape)
    if not whole or max(shape) >= 2**31 or math.prod(shape) * dtype.itemsize != len(data):
        raise MalformedRequest(
            f"the header promises {dtype} {str(shape)[:100]}, but {len(data)} bytes follow it"
        )
    return np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran else "C")


def images_of(document: dict[str, Any], most: int) -> EncodedImages:
    """The images of a JSON body."""
    values = _list_of(document, "images", most)
    return EncodedImages(each(len(values), lambda index: _from_base64(values[index])))


def latents_of(document: dict[str, Any], most: int) -> Latents:
    """The latents of a JSON body."""
    values = _list_of(document, "latents", most)
    return each(len(values), lambda index: _vector(values[index]))


def ends_of(document: dict[str, Any], most: int) -> tuple[EncodedImages | Latents, dict[str, Any]]:
    if {"latents", "images"} <= document.keys():
        raise InvalidParameter("the body holds latents and images; send either")
    ends = latents_of(document, most) if "latents" in document else images_of(document, most)
    return ends, {key: value for key, value in document.items() if key not in ("latents", "images")}


def as_latents(array: Array) -> Latents:
    """Raises InvalidItems where the array is not float32 with two dimensions."""
    if array.dtype.kind != "f" or array.dtype.itemsize != 4 or array.ndim != 2:
        wrong = InvalidLatents(
            f"latents must be float32 (n, latent_dim), not {array.dtype} {array.shape}"
        )
        raise InvalidItems([(0, wrong)])
    return array.astype(np.float32, copy=False)


def parts_of(body: bytes, boundary: str, most: int) -> list[bytes]:
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
                    raise MalformedRequest(
                        f"part {event.name[:50]!r} is not known; name the file parts 'images'"
                    )
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
        details = [
            f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}" for wrong in error.errors()
        ]
        raise InvalidParameter("; ".join(details)) from None
