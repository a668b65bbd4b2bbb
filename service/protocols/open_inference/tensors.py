"""Tensors of the Open Inference Protocol: their JSON, and the bytes behind it."""

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict, Field

from bundle.errors import InvalidParameter
from bundle.tensors import Array
from service.api.errors import MalformedRequest
from service.api.parsing import parse_json, to_floats, validate_options
from service.operations import check_count

BYTES = "BYTES"
DTYPES: dict[str, np.dtype[Any]] = {
    "UINT8": np.dtype("u1"),
    "FP32": np.dtype("<f4"),
    "BOOL": np.dtype("?"),
}
DATATYPES = {dtype: name for name, dtype in DTYPES.items()}
Dimension = Annotated[int, Field(ge=0, lt=2**31)]
Parameters = Mapping[str, Any]
Value = Array | list[bytes]  # numbers, or the elements of BYTES


class InputTensor(BaseModel):
    """Input tensor; its data are in JSON, or bytes behind the JSON."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(description="Name of the input: `images` or `latents`.")
    shape: Annotated[list[Dimension], Field(min_length=1, max_length=8)] = Field(
        description="Size of each dimension; the first is the number of images or latents."
    )
    datatype: str = Field(
        description="`BYTES` for encoded images, `UINT8` for pixels, `FP32` for latents."
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        description="`binary_data_size`: bytes of this tensor behind the JSON, in place of `data`.",
    )
    data: Any = Field(
        None,
        description="Elements in row-major order, as a flat or nested list; `BYTES` are base64.",
    )


class RequestedOutput(BaseModel):
    """Output that the response shall hold."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(description="Name of the output, from the model's metadata.")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="`binary_data`: true for bytes behind the JSON."
    )


class InferRequest(BaseModel):
    """Inputs of an inference."""

    model_config = ConfigDict(extra="ignore")

    id: Annotated[str, Field(max_length=1024)] | None = Field(
        None, description="ID that the response repeats."
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        description="Options of the operation, such as `false_positive_rate`, `count`, `seed`, "
        "`temperature`, `steps` and `method`. `binary_data_output`: true for bytes in all outputs.",
    )
    inputs: Annotated[list[InputTensor], Field(max_length=8)] = Field(
        default_factory=list, description="Input tensors; none for `NAME.sample`."
    )
    outputs: Annotated[list[RequestedOutput], Field(max_length=64)] | None = Field(
        None, description="Outputs that the response shall hold; all by default."
    )


@dataclass(frozen=True)
class ParsedRequest:
    """A parsed request: its inputs by name, and the names of outputs, of which some are binary."""

    id: str | None
    parameters: Parameters
    inputs: Mapping[str, Value]
    outputs: Sequence[str] | None  # None: all
    binary: Mapping[str, bool] = field(default_factory=dict)
    binary_default: bool = False

    def is_binary(self, output: str) -> bool:
        """Return True if an output is sent as bytes."""
        return self.binary.get(output, self.binary_default)


def parse_request(body: bytes, header_length: str | None, max_items: int) -> ParsedRequest:
    """Parse a request; `header_length` is the length of its JSON, if bytes follow it.

    Raises MalformedRequest if the bytes are too few or too many, InvalidParameter for tensors that
    contradict their shape or data type, and TooManyImages for more than `max_items`.
    """
    json_bytes, rest = _split(body, header_length)
    document = validate_options(InferRequest, parse_json(json_bytes))
    _check_names("input", [tensor.name for tensor in document.inputs])
    _check_names("output", [output.name for output in document.outputs or ()])
    inputs: dict[str, Value] = {}
    for tensor in document.inputs:
        check_count(tensor.shape[0], max_items)
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            inputs[tensor.name] = _parse_data(tensor)
            continue
        if not isinstance(size, int) or not 0 <= size <= len(rest):
            raise MalformedRequest(
                f"input {tensor.name[:50]!r}: binary_data_size is {str(size)[:50]}, and "
                f"{len(rest)} bytes are left"
            )
        inputs[tensor.name] = _parse_bytes(tensor, rest[:size])
        rest = rest[size:]
    if rest:
        raise MalformedRequest(f"{len(rest)} bytes follow the last binary input; send none")
    requested = document.outputs or None  # an empty list asks for all, as in Triton
    return ParsedRequest(
        id=document.id,
        parameters=document.parameters,
        inputs=inputs,
        outputs=None if requested is None else [output.name for output in requested],
        binary={
            output.name: bool(output.parameters["binary_data"])
            for output in requested or ()
            if "binary_data" in output.parameters
        },
        binary_default=bool(document.parameters.get("binary_data_output", False)),
    )


def _split(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    if header_length is None:
        return body, memoryview(b"")
    if not header_length.isdecimal() or len(header_length) > 18:
        raise MalformedRequest(f"Inference-Header-Content-Length is {header_length[:50]!r}")
    length = int(header_length)
    if length > len(body):
        raise MalformedRequest(
            f"Inference-Header-Content-Length is {length}, and the body has {len(body)} bytes"
        )
    return body[:length], memoryview(body)[length:]


def _check_names(kind: str, names: Sequence[str]) -> None:
    if len({*names}) < len(names):
        name = next(name for name in names if names.count(name) > 1)
        raise InvalidParameter(
            f"the {kind} {name[:50]!r} is there {names.count(name)} times; name it once"
        )


def _parse_data(tensor: InputTensor) -> Value:
    """Parse data in JSON: nested or flat lists, and base64 for BYTES."""
    values = _flatten(tensor)
    if tensor.datatype == BYTES:
        return [_decode_base64(tensor, text) for text in values]
    dtype, floats = _get_dtype(tensor), to_floats(values)
    if floats is None:
        raise InvalidParameter(f"input {tensor.name[:50]!r} must hold numbers only")
    if dtype.kind == "u" and not all(type(value) is int and 0 <= value <= 255 for value in values):
        raise InvalidParameter(f"input {tensor.name[:50]!r} must hold integers of 0 to 255")
    return floats.astype(dtype).reshape(tensor.shape)


def _flatten(tensor: InputTensor) -> list[Any]:
    """Return the elements of nested lists. Raises InvalidParameter unless they fill the shape."""
    values = tensor.data if isinstance(tensor.data, list) else [tensor.data]
    for _ in tensor.shape:
        if values and all(isinstance(value, list) for value in values):
            values = [element for value in values for element in value]
    _check_count(tensor, len(values))
    return values


def _parse_bytes(tensor: InputTensor, data: memoryview) -> Value:
    """Parse the bytes of a tensor; the elements of BYTES have their length before them."""
    if tensor.datatype != BYTES:
        dtype = _get_dtype(tensor)
        if math.prod(tensor.shape) * dtype.itemsize != len(data) or not all(tensor.shape[1:]):
            raise MalformedRequest(
                f"input {tensor.name[:50]!r} has {len(data)} bytes, not those of the shape "
                f"{tensor.shape}"
            )
        return np.frombuffer(data, dtype).reshape(tensor.shape)
    elements, start, count = list[bytes](), 0, math.prod(tensor.shape)
    while start < len(data) and len(elements) <= count:
        end = start + 4 + int.from_bytes(data[start : start + 4], "little")
        if start + 4 > len(data) or end > len(data):
            raise MalformedRequest(f"input {tensor.name[:50]!r}: an element of BYTES is incomplete")
        elements.append(bytes(data[start + 4 : end]))
        start = end
    _check_count(tensor, len(elements))
    return elements


def _check_count(tensor: InputTensor, count: int) -> None:
    if math.prod(tensor.shape) != count or not all(tensor.shape[1:]):
        raise InvalidParameter(
            f"input {tensor.name[:50]!r} has {count} elements, not those of the shape "
            f"{tensor.shape}"
        )


def _get_dtype(tensor: InputTensor) -> np.dtype[Any]:
    if tensor.datatype not in DTYPES:
        raise InvalidParameter(
            f"input {tensor.name[:50]!r} is {tensor.datatype[:20]}; send {BYTES}, UINT8 or FP32"
        )
    return DTYPES[tensor.datatype]


def _decode_base64(tensor: InputTensor, text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise InvalidParameter(
            f"input {tensor.name[:50]!r}: BYTES in JSON are base64; or send them as binary data"
        ) from None


def render_response(
    name: str, version: int, request: ParsedRequest, outputs: Mapping[str, Array]
) -> tuple[bytes, int | None]:
    """Return the body of a response, and the length of its JSON if bytes follow it."""
    entries, blobs = [], []
    for output in outputs if request.outputs is None else request.outputs:
        array = outputs[output]
        entry: dict[str, Any] = {
            "name": output,
            "datatype": DATATYPES[array.dtype],
            "shape": list(array.shape),
        }
        if request.is_binary(output):
            blobs.append(array.tobytes())
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = np.ascontiguousarray(array).ravel()
        entries.append(entry)
    body = {"model_name": name, "model_version": str(version), "outputs": entries}
    if request.id is not None:
        body["id"] = request.id
    text = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join([text, *blobs]), len(text) if blobs else None
