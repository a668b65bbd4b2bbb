"""The short way to the operations: from the path to the handler with nothing between.

Requests for other things go on to FastAPI's routes. Its routing and dependencies would cost a small request as much as
its inference.
"""

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from fastapi.security.utils import get_authorization_scheme_param
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from bundle.errors import DomainError
from service.api import errors
from service.api.dependencies import Services
from service.api.disconnect import Presences
from service.api.negotiation import choose
from service.api.operation import Call, Operation
from service.api.parsing import options_of
from service.api.requests import Incoming
from service.api.throttle import Pace
from service.errors import DeadlineExceeded, OperationNotSupported, Overloaded


class Target(NamedTuple):
    """What a path names: an operation of a model, in a version or in its newest."""

    model: str
    version: str | None
    operation: str


def target_of(path: str) -> Target | None:
    """Of `/v1/models/{model}/{operation}` and `/v1/models/{model}/versions/{version}/{operation}`, else None."""
    match path.split("/"):
        case ["", "v1", "models", model, operation] if model and operation:
            return Target(model, None, operation)
        case ["", "v1", "models", model, "versions", version, operation] if model and version and operation:
            return Target(model, version, operation)
    return None


class Dispatch:
    """Answers a POST to an operation itself, as it does other methods on one; passes on everything else."""

    def __init__(self, app: ASGIApp, operations: Sequence[Operation[Any]]) -> None:
        self._app = app
        self._operations = {operation.name: operation for operation in operations}
        self._presences = Presences()
        self._refusals = Pace()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        target = target_of(scope["path"]) if scope["type"] == "http" else None
        if target is None or (scope["method"] != "POST" and target.operation not in self._operations):
            await self._app(scope, receive, send)
            return
        if scope["method"] == "POST":
            await self._serve(target, scope, receive, send)
            return
        detail = f"{scope['method']} {scope['path']}: an operation is asked for with POST"
        allow = {"Allow": "POST"}
        answer = errors.problem(scope["state"]["request_id"], 405, "method_not_allowed", detail, headers=allow)
        await answer(scope, receive, send)

    async def _serve(self, target: Target, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with scope["state"]["services"].executor.upload() as upload:
                answer = await self._attended(target, scope, Incoming(scope, receive, upload))
        except DomainError as error:
            answer = errors.answer(scope["state"]["request_id"], error)
            if isinstance(error, Overloaded):
                error.with_traceback(None)  # which would keep the body while the refusal waits
                await self._refusals.turn()
        await answer(scope, receive, send)

    async def _attended(self, target: Target, scope: Scope, request: Incoming) -> Response:
        """The answer, while the client is there. Raises DeadlineExceeded where the body does not come in time."""
        patience = scope["state"]["services"].body_limits.timeout
        presence = self._presences.enter(request, patience)
        try:
            return await self._answer(target, scope, request)
        except asyncio.CancelledError:
            if presence.left:
                raise ClientDisconnect from None
            if not presence.late:
                raise
            presence.task.uncancel()
            raise DeadlineExceeded(f"the body was not whole after {patience:g} s") from None
        finally:
            self._presences.leave(presence)

    async def _answer(self, target: Target, scope: Scope, request: Incoming) -> Response:
        services: Services = scope["state"]["services"]
        scheme, key = get_authorization_scheme_param(request.headers.get("authorization"))
        services.api_keys.check(key if scheme.lower() == "bearer" else None, target.operation)
        model = services.registry.get(target.model, target.version)
        operation = self._operations.get(target.operation)
        if operation is None:
            can = ", ".join(model.manifest.capabilities)
            raise OperationNotSupported(
                f"{model.manifest.name} has no operation {target.operation[:50]!r}; it can: {can}"
            )
        scope["state"]["labels"] = operation.name, target.model
        options = _options(operation, scope["query_string"])
        services.executor.check_room()  # before the body is read
        kind = choose(request.headers.get("accept", ""), operation.offered)
        return await operation.handle(Call(request, model, kind, services, scope["state"]["timings"]), options)


@lru_cache(maxsize=256)
def _options(operation: Operation[Any], query: bytes) -> BaseModel:
    """The options of a query. Raises InvalidParameter."""
    options: type[BaseModel] = operation.options
    return options_of(options, dict(parse_qsl(query.decode("ascii", "replace"), keep_blank_values=True)))
