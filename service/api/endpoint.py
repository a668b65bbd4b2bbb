"""Endpoints of the operations: from a request to the handler of an operation, and its response.

Plain routes of Starlette lead here. FastAPI's routing and dependencies would cost a small request
as much as its inference. FastAPI serves all other routes, and documents the operations.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bundle.errors import DomainError
from service.api import errors
from service.api.context import get_context
from service.api.dependencies import Services
from service.api.disconnect import DisconnectWatcher
from service.api.negotiation import choose
from service.api.operation import Call, Operation
from service.api.parsing import validate_options
from service.api.requests import IncomingRequest
from service.api.security import read_bearer
from service.api.throttle import RejectionThrottle
from service.asgi import wait_until_sent
from service.errors import DeadlineExceeded, OperationNotSupported, Overloaded, RateLimited
from service.operations import Operations

CACHED_PATHS = 256
PREFIXES = ("/v1/models/{model}/versions/{version}", "/v1/models/{model}")


class BoundedEndpoint(ABC):
    """Responds to a POST with a body, within the limits of bytes, time and rejections."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._watcher = DisconnectWatcher()
        self._throttle = RejectionThrottle()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        admission = self._services.admission
        try:
            with admission.track_upload() as upload:
                response = await self._respond_while_connected(
                    scope, IncomingRequest(scope, receive, upload)
                )
        except DomainError as error:
            response = errors.respond(scope, error)
            if isinstance(error, Overloaded | RateLimited):
                error.with_traceback(None)  # it would keep the body while the rejection waits
                await self._throttle.wait()
        with admission.hold(len(response.body)):
            await response(scope, receive, send)
            await wait_until_sent(scope)

    async def _respond_while_connected(self, scope: Scope, request: IncomingRequest) -> Response:
        """Return the response.

        Raises ClientDisconnect if the client disconnects, and DeadlineExceeded if its body is late.
        """
        timeout = self._services.body_limits.timeout
        watched = self._watcher.watch(request, timeout)
        try:
            return await self._respond(scope, request)
        except asyncio.CancelledError:
            if watched.disconnected:
                raise ClientDisconnect from None
            if not watched.late:
                raise
            watched.task.uncancel()
            raise DeadlineExceeded(
                f"the body was not complete after {timeout:g} s; send it faster, or send less"
            ) from None
        finally:
            self._watcher.release(watched)

    @abstractmethod
    async def _respond(self, scope: Scope, request: IncomingRequest) -> Response:
        """Return the response. Raises DomainError."""

    def _check_key(self, request: IncomingRequest, right: str) -> Operations:
        """Return the operations of the client. Raises as `ApiKeys.check` does."""
        services, key = self._services, read_bearer(request.headers.get("authorization"))
        client = services.api_keys.check(key, right)
        return services.operations.of_client(client) if client else services.operations


class OperationEndpoint(BoundedEndpoint):
    """Responds to a POST to any operation of any model, also to a missing one."""

    def __init__(self, services: Services, operations: Sequence[Operation[Any]]) -> None:
        super().__init__(services)
        self._operations = {operation.name: operation for operation in operations}

    async def _respond(self, scope: Scope, request: IncomingRequest) -> Response:
        services, context, parameters = self._services, get_context(scope), scope["path_params"]
        name: str = parameters["operation"]
        operations = self._check_key(request, name)
        model = services.registry.get(parameters["model"], parameters.get("version"))
        context.bundle = model.digest
        operation = self._operations.get(name)
        if operation is None:
            supported = ", ".join(model.manifest.capabilities)
            raise OperationNotSupported(
                f"{model.manifest.name} has no operation {name[:50]!r}; it can: {supported}"
            )
        context.labels = operation.name, parameters["model"]
        options = _parse_options(operation, scope["query_string"])
        services.admission.check()  # before the body is read
        media_type = choose(request.headers.get("accept", ""), operation.offered)
        call = Call(request, model, media_type, services, operations, context.timings)
        return await operation.handle(call, options)


class PostRouter:
    """Passes a POST to the endpoint of its path, and other requests to the routes behind it.

    Matches are cached, because clients repeat few paths.
    """

    def __init__(self, routes: Sequence[Route], default: ASGIApp) -> None:
        self._routes, self._default = routes, default
        self._match = lru_cache(maxsize=CACHED_PATHS)(self._find)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        found = self._match(scope["path"]) if scope.get("method") == "POST" else None
        if found is None:
            return self._default(scope, receive, send)
        endpoint, scope["path_params"] = found
        return endpoint(scope, receive, send)

    def _find(self, path: str) -> tuple[ASGIApp, Mapping[str, str]] | None:
        scope = {"type": "http", "method": "POST", "path": path}
        for route in self._routes:
            match, child_scope = route.matches(scope)
            if match == Match.FULL:
                return route.app, child_scope["path_params"]
        return None


def build_routes(services: Services, operations: Sequence[Operation[Any]]) -> list[Route]:
    """Return the routes of all operations."""
    paths = [f"{prefix}/{{operation}}" for prefix in PREFIXES]
    return route(OperationEndpoint(services, operations), paths)


def route(endpoint: BoundedEndpoint, paths: Sequence[str]) -> list[Route]:
    """Return the routes from some paths to an endpoint."""
    return [Route(path, endpoint, methods=["POST"], name=path) for path in paths]


@lru_cache(maxsize=256)
def _parse_options(operation: Operation[Any], query: bytes) -> BaseModel:
    """Return the options of a query. Raises InvalidParameter."""
    options: type[BaseModel] = operation.options
    values = parse_qsl(query.decode("ascii", "replace"), keep_blank_values=True)
    return validate_options(options, dict(values))
