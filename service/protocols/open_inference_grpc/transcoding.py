"""Calls as requests under /v2, and their responses as messages."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import numpy as np
import orjson
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError, Message
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from bundle.errors import DomainError, InvalidParameter
from service.api import errors, requests
from service.api.error_bodies import V2_CALLS
from service.api.errors import MalformedRequest, NotServed, PayloadTooLarge
from service.api.requests import MAX_OPTION_BYTES
from service.protocols.open_inference.endpoint import HEADER_LENGTH
from service.protocols.open_inference.tensors import BYTES
from service.protocols.open_inference_grpc import open_inference_pb2 as pb
from service.protocols.open_inference_grpc import wire

SERVICE = V2_CALLS.strip("/")

CONTENTS = {"UINT8": "uint_contents", "FP32": "fp32_contents", BYTES: "bytes_contents"}


class HttpResponse(NamedTuple):
    """The body of a response, and the length of its JSON if bytes follow it."""

    body: bytes
    header_bytes: int | None

    def parse(self) -> Any:
        """Return the JSON."""
        return json.loads(self.body[: self.header_bytes])


class HttpRequest(NamedTuple):
    """A request under /v2, and the message of its response.

    If bytes follow the JSON of the body, the JSON has `header_bytes`.
    """

    method: str
    path: str
    render: Callable[[HttpResponse], Message]
    body: Sequence[bytes] = ()
    header_bytes: int | None = None


class Method(NamedTuple):
    """The message of a method, and its request."""

    message: type[Message]
    convert: Callable[[Any], HttpRequest]


class Transcoder:
    """Responds to a call by a request under /v2.

    The bodies of the call and of its response are serialised messages; an error remains JSON.
    `admit` is called with the header `Authorization` before a message is received.
    """

    def __init__(self, app: ASGIApp, admit: Callable[[str | None], None]) -> None:
        self.app, self.admit = app, admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            request = await self._read(scope, receive)
        except DomainError as error:
            await errors.respond(scope, error)(scope, receive, send)
            return
        events: list[Any] = [
            {"type": "http.request", "body": chunk, "more_body": True} for chunk in request.body
        ]
        events.append({"type": "http.request", "body": b""})
        render = request.render
        scope = _build_scope(scope, request)
        del request  # so that each part of the body is freed when it has been read

        async def receive_body() -> Any:
            return events.pop(0) if events else await receive()

        await self.app(scope, receive_body, _Responder(render, send))

    async def _read(self, scope: Scope, receive: Receive) -> HttpRequest:
        """Return the request of a call. Raises DomainError, and ClientDisconnect."""
        name = scope["path"].removeprefix(V2_CALLS)
        if name not in METHODS:
            raise NotServed(f"{name[:50]} is not served")
        method = METHODS[name]
        if not method.message.DESCRIPTOR.fields:  # it needs no key, and is not received
            return method.convert(method.message())
        self.admit(dict(scope["headers"]).get(b"authorization", b"").decode("latin-1") or None)
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientDisconnect
        body = event["body"]
        return await requests.parse(body, lambda: _parse(method, body))


class _Responder:
    """A `send` that turns the JSON of a response into a message."""

    def __init__(self, render: Callable[[HttpResponse], Message], send: Send) -> None:
        self._render, self._send = render, send
        self._start: Any = None
        self._body = b""

    async def __call__(self, event: Any) -> None:
        if event["type"] == "http.response.start":
            self._start = event
            return
        self._body += event.get("body", b"")
        if event.get("more_body"):
            return
        start, body = self._start, self._body
        length = dict(start["headers"]).get(HEADER_LENGTH.encode())
        response = HttpResponse(body, None if length is None else int(length))
        # A probe that fails has no error, and is a response as any.
        if start["status"] < 400 or "error" not in response.parse():
            start = {**start, "status": 200}
            body = await requests.parse(body, lambda: self._render(response).SerializeToString())
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})


def _parse(method: Method, body: bytes) -> HttpRequest:
    if method.message is pb.ModelInferRequest:
        wire.check_size(body)
    elif len(body) > MAX_OPTION_BYTES:
        raise PayloadTooLarge(f"the message has {len(body)} bytes; send at most {MAX_OPTION_BYTES}")
    message = method.message()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise MalformedRequest(f"the message cannot be parsed: {error}") from None
    return method.convert(message)


def _build_scope(scope: Scope, request: HttpRequest) -> Scope:
    """Return the scope of a request, with the key of the call."""
    headers = [(name, value) for name, value in scope["headers"] if name == b"authorization"]
    if request.header_bytes is not None:
        headers.append((HEADER_LENGTH.encode(), str(request.header_bytes).encode()))
    return {
        **scope,
        "method": request.method,
        "path": unquote(request.path),
        "raw_path": request.path.encode(),
        "headers": headers,
    }


def _get(path: str, response: type[Message]) -> Callable[[Any], HttpRequest]:
    """Return the conversion of a message without content."""
    return lambda _: HttpRequest("GET", path, _fill(response))


def _get_model(response: type[Message], suffix: str = "") -> Callable[[Any], HttpRequest]:
    """Return the conversion of a message that names a model."""

    def convert(message: Any) -> HttpRequest:
        path = _build_path(message.name, message.version)
        return HttpRequest("GET", f"{path}{suffix}", _fill(response))

    return convert


def _control(response: type[Message], action: str) -> Callable[[Any], HttpRequest]:
    """Return the conversion of a message that loads or unloads a model."""

    def convert(message: Any) -> HttpRequest:
        path = f"/v2/repository/models/{quote(message.model_name, safe='')}/{action}"
        return HttpRequest("POST", path, _fill(response))

    return convert


def _fill(kind: type[Message]) -> Callable[[HttpResponse], Message]:
    """Return the message whose fields are those of the JSON of a response."""
    return lambda response: ParseDict(response.parse(), kind(), ignore_unknown_fields=True)


def _list(message: pb.RepositoryIndexRequest) -> HttpRequest:
    ready = message.ready

    def render(response: HttpResponse) -> Message:
        found = [each for each in response.parse() if not ready or each["state"] == "READY"]
        return ParseDict({"models": found}, pb.RepositoryIndexResponse())

    return HttpRequest("POST", "/v2/repository/index", render)


def _infer(message: pb.ModelInferRequest) -> HttpRequest:
    blobs = _read_blobs(message)
    inputs = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": [*tensor.shape],
            "parameters": {"binary_data_size": len(blob)},
        }
        for tensor, blob in zip(message.inputs, blobs, strict=True)
    ]
    document = {
        "id": message.id or None,
        "parameters": {**_read_parameters(message.parameters), "binary_data_output": True},
        "inputs": inputs,
        "outputs": [{"name": output.name} for output in message.outputs],
    }
    header = orjson.dumps(document)
    path = f"{_build_path(message.model_name, message.model_version)}/infer"
    return HttpRequest("POST", path, _render_outputs, [header, *blobs], len(header))


def _read_blobs(message: pb.ModelInferRequest) -> list[bytes]:
    """Return the bytes of the inputs. Raises InvalidParameter."""
    raw, inputs = [*message.raw_input_contents], message.inputs
    if not raw:
        return [_pack(tensor) for tensor in inputs]
    if len(raw) != len(inputs) or any(tensor.HasField("contents") for tensor in inputs):
        raise InvalidParameter(
            f"there are {len(inputs)} inputs and {len(raw)} raw_input_contents; send one for each "
            "input, and no contents"
        )
    return raw


def _pack(tensor: pb.ModelInferRequest.InferInputTensor) -> bytes:
    """Return the contents of a tensor as bytes. Raises InvalidParameter."""
    field = CONTENTS.get(tensor.datatype)
    if field is None:
        return b""  # the data type is refused later
    if other := {found.name for found, _ in tensor.contents.ListFields()} - {field}:
        raise InvalidParameter(
            f"input {tensor.name[:50]!r} is {tensor.datatype} and has {min(other)}; send {field}"
        )
    elements = getattr(tensor.contents, field)
    if tensor.datatype == BYTES:
        return b"".join(len(each).to_bytes(4, "little") + each for each in elements)
    if tensor.datatype == "FP32":
        return np.array(elements, "<f4").tobytes()
    numbers = np.array(elements, np.uint32)
    if (numbers > 255).any():
        raise InvalidParameter(f"input {tensor.name[:50]!r} must hold integers of 0 to 255")
    return numbers.astype(np.uint8).tobytes()


def _read_parameters(parameters: Mapping[str, pb.InferParameter]) -> dict[str, Any]:
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in parameters.items()}
    return {name: getattr(parameters[name], kind) for name, kind in chosen.items() if kind}


def _render_outputs(response: HttpResponse) -> Message:
    document, position = response.parse(), response.header_bytes or 0
    message = pb.ModelInferResponse(
        model_name=document["model_name"],
        model_version=document["model_version"],
        id=document.get("id", ""),
    )
    for output in document["outputs"]:
        message.outputs.add(name=output["name"], datatype=output["datatype"], shape=output["shape"])
        end = position + output["parameters"]["binary_data_size"]
        message.raw_output_contents.append(response.body[position:end])
        position = end
    return message


def _build_path(model: str, version: str) -> str:
    path = f"/v2/models/{quote(model, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


METHODS: dict[str, Method] = {
    "ServerLive": Method(pb.ServerLiveRequest, _get("/v2/health/live", pb.ServerLiveResponse)),
    "ServerReady": Method(pb.ServerReadyRequest, _get("/v2/health/ready", pb.ServerReadyResponse)),
    "ServerMetadata": Method(pb.ServerMetadataRequest, _get("/v2", pb.ServerMetadataResponse)),
    "ModelReady": Method(pb.ModelReadyRequest, _get_model(pb.ModelReadyResponse, "/ready")),
    "ModelMetadata": Method(pb.ModelMetadataRequest, _get_model(pb.ModelMetadataResponse)),
    "ModelInfer": Method(pb.ModelInferRequest, _infer),
    "RepositoryIndex": Method(pb.RepositoryIndexRequest, _list),
    "RepositoryModelLoad": Method(
        pb.RepositoryModelLoadRequest, _control(pb.RepositoryModelLoadResponse, "load")
    ),
    "RepositoryModelUnload": Method(
        pb.RepositoryModelUnloadRequest, _control(pb.RepositoryModelUnloadResponse, "unload")
    ),
}
