"""Parsers of request bodies."""

import base64
import binascii
import io
import math
import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import pydantic_core
from multipart import MultipartError, PushMultipartParser
from pydantic import BaseModel, ValidationError

from bundle.errors import InvalidImage, InvalidParameter
from bundle.tensors import Array
from service.api.errors import MalformedRequest, PayloadTooLarge
from service.errors import InvalidItems, InvalidLatents
from service.operations import EncodedImages, Latents, check_count, map_items

Options = TypeVar("Options", bound=BaseModel)
# Counted before parsing, which holds the interpreter and so delays other requests even in a thread:
# as many numbers take a twentieth of a second and 32 MB.
MAX_JSON_VALUES, MAX_JSON_KEYS = 2**20, 2**12
MAX_NAMED_OPTIONS = 10  # in an error
_DATA_URL = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)


def parse_json(body: bytes, known: Collection[str] | None = None) -> dict[str, Any]:
    """Parse a JSON object.

    Raises MalformedRequest if the body is not JSON, PayloadTooLarge if it holds too many values.
    Raises InvalidParameter if it is not an object, or holds keys other than `known`.
    """
    if (keys := body.count(b":")) > MAX_JSON_KEYS:
        raise PayloadTooLarge(
            f"the body holds about {keys} JSON keys; send at most {MAX_JSON_KEYS}"
        )
    if (values := sum(body.count(mark) for mark in (b",", b"[", b"{"))) > MAX_JSON_VALUES:
        raise PayloadTooLarge(
            f"the body holds about {values} JSON values; send at most {MAX_JSON_VALUES}, or an npy "
            "array"
        )
    try:
        # NaN and infinity are accepted here, because the check of latents names their vector.
        document = pydantic_core.from_json(body, allow_inf_nan=True)
    except ValueError as error:
        raise MalformedRequest(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidParameter("the body is not a JSON object; send {...}")
    if known is not None and (unknown := document.keys() - known):
        raise InvalidParameter(
            f"the body holds the unknown key {min(unknown)[:50]!r}; send {', '.join(sorted(known))}"
        )
    return document


def parse_npy(body: bytes) -> Array:
    """Parse one NumPy array without copying or unpickling. Raises MalformedRequest."""
    # The length of the header has two bytes in version 1 of the format, and four in later versions.
    begin = 10 if body[6:8] == b"\1\0" else 12
    end = begin + int.from_bytes(body[8:begin], "little")
    try:
        shape, fortran, dtype = _parse_npy_header(body[:end])
    except Exception as error:  # numpy evaluates a Python literal, which raises nearly anything
        raise MalformedRequest(f"the body is not an npy array: {str(error)[:200]}") from None
    if dtype.kind not in "biuf" or dtype.shape:
        raise MalformedRequest(
            f"the array holds {str(dtype)[:50]}; send numbers, because nothing is unpickled"
        )
    data = memoryview(body)[end:]
    valid = 0 < len(shape) <= 8 and all(type(size) is int and size >= 0 for size in shape)
    if not valid or max(shape) >= 2**31 or math.prod(shape) * dtype.itemsize != len(data):
        raise MalformedRequest(
            f"the array differs from its header {dtype} {str(shape)[:100]}, which {len(data)} "
            "bytes follow; write it with numpy.save"
        )
    return np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran else "C")


@lru_cache(maxsize=64)  # because numpy evaluates a Python literal
def _parse_npy_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, Fortran order and data type."""
    stream = io.BytesIO(header)
    if np.lib.format.read_magic(stream) == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


def parse_images(document: dict[str, Any], max_count: int) -> EncodedImages:
    """Parse the images of a JSON body, at most `max_count`."""
    values = _get_list(document, "images", max_count)
    return EncodedImages(map_items(len(values), lambda index: decode_base64(values[index])))


def parse_latents(document: dict[str, Any], max_count: int) -> Latents:
    """Parse the latents of a JSON body, at most `max_count`."""
    values = _get_list(document, "latents", max_count)
    return map_items(len(values), lambda index: _parse_vector(values[index]))


def parse_ends(
    document: dict[str, Any], max_count: int
) -> tuple[EncodedImages | Latents, dict[str, Any]]:
    """Parse the images or latents of a JSON body, and return its other keys with them."""
    if {"latents", "images"} <= document.keys():
        raise InvalidParameter("the body holds latents and images; send either")
    ends = (
        parse_latents(document, max_count)
        if "latents" in document
        else parse_images(document, max_count)
    )
    return ends, {key: value for key, value in document.items() if key not in ("latents", "images")}


def check_latents(array: Array) -> Latents:
    """Return the latents, float32 (n, latent_dim). Raises InvalidItems for other arrays."""
    if array.dtype.kind != "f" or array.dtype.itemsize != 4 or array.ndim != 2:
        invalid = InvalidLatents(
            f"latents must be float32 (n, latent_dim), not {array.dtype} {array.shape}"
        )
        raise InvalidItems([(0, invalid)])
    return array.astype(np.float32, copy=False)


def parse_multipart(body: bytes, boundary: str, max_count: int) -> list[bytes]:
    """Parse the parts named `images`.

    Raises MalformedRequest if the body is damaged or holds other parts.
    """
    images: list[bytes] = []
    chunks: list[bytes] = []
    try:
        with PushMultipartParser(boundary) as parser:
            for event in parser.parse(body):
                if event is None:
                    images.append(b"".join(chunks))
                    check_count(len(images), max_count)
                elif isinstance(event, bytes | bytearray):
                    chunks.append(bytes(event))
                elif event.name == "images":
                    chunks = []
                else:
                    raise MalformedRequest(
                        f"part {event.name[:50]!r} is unknown; name the file parts 'images'"
                    )
    except MultipartError as error:
        raise MalformedRequest(f"the body is not multipart/form-data: {error}") from None
    return images


def _get_list(document: dict[str, Any], key: str, max_count: int) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise InvalidParameter(f"the body must hold a list under {key!r}")
    check_count(len(value), max_count)
    return value


def decode_base64(text: Any) -> bytes:
    """Decode base64, also in a data: URL. Raises InvalidImage."""
    if not isinstance(text, str):
        raise InvalidImage("an image in JSON is a string: base64, or a data: URL that holds base64")
    if prefix := _DATA_URL.match(text):
        text = text[prefix.end() :]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidImage(f"the string is not base64: {error}") from None


def _parse_vector(numbers: Any) -> Array:
    vector = to_floats(numbers) if isinstance(numbers, list) else None
    if vector is None:
        raise InvalidLatents("a latent must be a list of numbers")
    return vector


def to_floats(values: list[Any]) -> Array | None:
    """Return a list of numbers as float32, or None if it holds anything else.

    The types are checked before NumPy, which makes every element as long as the longest string.
    """
    if not {*map(type, values)} <= {int, float}:
        return None
    try:
        with np.errstate(over="ignore"):  # a later check rejects infinity
            return np.array(values, np.float64).astype(np.float32)
    except OverflowError:  # an integer beyond every float
        return None


def validate_options(model: type[Options], values: dict[str, Any]) -> Options:
    """Return the options in `values`. Raises InvalidParameter, which names each invalid option."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        details = [
            f"{'.'.join(map(str, each['loc']))[:50]}: {each['msg'][:200]}"
            for each in problems[:MAX_NAMED_OPTIONS]
        ]
        if len(problems) > MAX_NAMED_OPTIONS:
            details.append(f"and {len(problems) - MAX_NAMED_OPTIONS} more")
        raise InvalidParameter("; ".join(details)) from None
