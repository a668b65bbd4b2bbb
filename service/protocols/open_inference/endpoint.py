"""Inference by the Open Inference Protocol."""

import asyncio
import zlib

from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from service.api import requests
from service.api.context import get_context
from service.api.dependencies import Services
from service.api.endpoint import BoundedEndpoint, route
from service.api.errors import MalformedRequest
from service.api.media_types import JSON
from service.api.operation import render
from service.api.requests import IncomingRequest
from service.protocols.open_inference import names, operations, tensors
from service.protocols.open_inference.operations import Inference

PATHS = ("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer")
HEADER_LENGTH = "inference-header-content-length"
BINARY = "application/octet-stream"
WINDOW_BITS = {"gzip": 31, "deflate": 15}  # of zlib, by Content-Encoding


class InferEndpoint(BoundedEndpoint):
    """Responds to an inference with the outputs of an operation."""

    async def _respond(self, scope: Scope, request: IncomingRequest) -> Response:
        services, context, parameters = self._services, get_context(scope), scope["path_params"]
        limits = services.body_limits
        target = names.resolve(services.registry, parameters["model"])
        client = self._check_key(request, target.operation)
        model = names.get(services.registry, target, parameters.get("version"))
        context.bundle, context.labels = model.digest, (target.operation, target.model)
        services.admission.check()  # before the body is read
        body = await self._read(request)
        header_length, max_items = request.headers.get(HEADER_LENGTH), limits.max_items
        parsed = await requests.parse(
            body, lambda: tensors.parse_request(body, header_length, max_items)
        )
        inference = Inference(model, client, parsed, context.timings)
        outputs = await operations.run(inference, target.operation)

        def make() -> Response:
            name, version = parameters["model"], model.manifest.version
            content, length = tensors.render_response(name, version, parsed, outputs)
            if length is None:
                return Response(content, media_type=JSON)
            return Response(content, headers={HEADER_LENGTH: str(length)}, media_type=BINARY)

        return await render(context.timings, make, sum(each.size for each in outputs.values()))

    async def _read(self, request: IncomingRequest) -> bytes:
        """Read a body, and decompress it within the limit of bytes, which is counted before."""
        limits = self._services.body_limits
        body = await requests.read(request, limits, WINDOW_BITS)
        coding = request.headers.get("content-encoding", "").strip().lower()
        if coding not in WINDOW_BITS:
            return body
        request.upload.add(limits.max_bytes)
        return await asyncio.to_thread(_decompress, body, coding, limits.max_bytes)


def _decompress(body: bytes, coding: str, max_bytes: int) -> bytes:
    """Decompress a body to at most `max_bytes`. Raises MalformedRequest, PayloadTooLarge."""
    decompressor = zlib.decompressobj(WINDOW_BITS[coding])
    try:
        plain = decompressor.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise MalformedRequest(f"the body is not {coding}: {error}") from None
    if len(plain) > max_bytes:
        raise requests.build_too_large(max_bytes)
    if not decompressor.eof or decompressor.unused_data:
        raise MalformedRequest(f"the body is not one complete {coding} stream")
    return plain


def build_routes(services: Services) -> list[Route]:
    """Return the routes that infer."""
    return route(InferEndpoint(services), PATHS)
