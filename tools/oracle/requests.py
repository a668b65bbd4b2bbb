"""Requests of the Open Inference Protocol that two servers are compared by."""

import base64
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

PNG = (Path(__file__).parents[2] / "service" / "api" / "example.png").read_bytes()
JSON = {"Content-Type": "application/json"}
Tensor = dict[str, Any]
ENCODED: Tensor = {"name": "images", "datatype": "BYTES", "shape": [1]}


class Request(NamedTuple):
    """HTTP request; `like` names its equivalent in JSON, if its body has binary tensors."""

    name: str
    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = {}
    like: str | None = None


class Model(NamedTuple):
    """Model that encodes images of a height and width."""

    name: str
    version: str
    height: int
    width: int

    @property
    def path(self) -> str:
        """Path of the model."""
        return f"/v2/models/{self.name}"

    @property
    def version_path(self) -> str:
        """Path of the version."""
        return f"{self.path}/versions/{self.version}"

    @property
    def pixels(self) -> Tensor:
        """Two images as an input, without data."""
        return {"name": "images", "datatype": "UINT8", "shape": [2, self.height, self.width]}


def build_requests(model: Model) -> list[Request]:
    """Return all requests to a server that has the model."""
    return [
        Request("server", "GET", "/v2"),
        Request("live", "GET", "/v2/health/live"),
        Request("ready", "GET", "/v2/health/ready"),
        Request("model", "GET", model.path),
        Request("model version", "GET", model.version_path),
        Request("model ready", "GET", f"{model.path}/ready"),
        Request("model version ready", "GET", f"{model.version_path}/ready"),
        _post("index", "/v2/repository/index", {}),
        *_build_inferences(model),
        *_build_binary_inferences(model),
        *_build_errors(model),
    ]


def _build_inferences(model: Model) -> Iterator[Request]:
    infer, pixels = f"{model.path}/infer", _fill(model.pixels)
    encoded = ENCODED | {"data": [base64.b64encode(PNG).decode()]}
    outputs = [{"name": "log_variances"}, {"name": "latents"}]
    yield _post("UINT8", infer, {"inputs": [pixels]})
    yield _post("BYTES", infer, {"inputs": [encoded]})
    yield _post("version", f"{model.version_path}/infer", {"inputs": [pixels]})
    yield _post("ID", infer, {"id": "mine", "inputs": [pixels]})
    yield _post("outputs", infer, {"inputs": [pixels], "outputs": outputs})


def _build_binary_inferences(model: Model) -> Iterator[Request]:
    """Build requests as tritonclient sends them."""
    infer = f"{model.path}/infer"
    blob, element = bytes(_count(model.pixels)), len(PNG).to_bytes(4, "little") + PNG
    pixels = model.pixels | {"parameters": {"binary_data_size": len(blob)}}
    encoded = ENCODED | {"parameters": {"binary_data_size": len(element)}}
    output = {"name": "latents", "parameters": {"binary_data": True}}
    whole: dict[str, Any] = {"parameters": {"binary_data_output": True}}
    for name, like, document, tail in (
        ("binary UINT8", "UINT8", {"inputs": [pixels]}, blob),
        ("binary BYTES", "BYTES", {"inputs": [encoded]}, element),
        ("binary response", "UINT8", {"inputs": [pixels], **whole}, blob),
        ("binary output", "UINT8", {"inputs": [pixels], "outputs": [output]}, blob),
    ):
        text = json.dumps(document).encode()
        headers = {"Inference-Header-Content-Length": str(len(text))}
        yield Request(name, "POST", infer, text + tail, headers, like)


def _build_errors(model: Model) -> Iterator[Request]:
    infer, pixels = f"{model.path}/infer", _fill(model.pixels)
    yield Request("unknown model", "GET", "/v2/models/unknown")
    yield Request("unknown model ready", "GET", "/v2/models/unknown/ready")
    yield Request("unknown version", "GET", f"{model.path}/versions/99")
    yield _post("infer by unknown model", "/v2/models/unknown/infer", {"inputs": [pixels]})
    yield Request("malformed JSON", "POST", infer, b"{", JSON)
    yield _post("no inputs", infer, {})
    yield _post("empty inputs", infer, {"inputs": []})
    yield _post("other input", infer, {"inputs": [pixels | {"name": "pictures"}]})
    yield _post("other data type", infer, {"inputs": [pixels | {"datatype": "INT64"}]})
    yield _post("unknown data type", infer, {"inputs": [pixels | {"datatype": "UINT7"}]})


def _count(tensor: Tensor) -> int:
    return math.prod(tensor["shape"])


def _fill(tensor: Tensor) -> Tensor:
    """Return a tensor with zeros in JSON."""
    return tensor | {"data": [0] * _count(tensor)}


def _post(name: str, path: str, document: Mapping[str, Any]) -> Request:
    return Request(name, "POST", path, json.dumps(document).encode(), JSON)
