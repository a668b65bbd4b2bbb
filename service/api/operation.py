"""An operation of a model, declared once: `endpoint` serves it and `openapi` documents it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel
from starlette.responses import Response

from service.api import requests
from service.api.dependencies import Services
from service.api.requests import IncomingRequest
from service.operations import EncodedImages, Timings
from service.registry.loaded_model import LoadedModel

Options = TypeVar("Options", bound=BaseModel)

INLINE_PIXELS = 4096  # of PNGs that are written in less time than a thread takes to begin


class Call(NamedTuple):
    """One request to a model's operation, and what its handler needs."""

    request: IncomingRequest
    model: LoadedModel
    media_type: str  # of the response
    services: Services
    timings: Timings

    async def read_images(self) -> EncodedImages:
        return await requests.read_images(self.request, self.services.body_limits)

    async def render(self, make: Callable[[], Response], pixels: int = 0) -> Response:
        """Make the response, in a thread if it holds many pixels, or bytes, of PNG.

        The time counts as encoding.
        """
        with self.timings.measure("encode"):
            return make() if pixels <= INLINE_PIXELS else await asyncio.to_thread(make)


@dataclass(frozen=True, eq=False)
class Operation(Generic[Options]):
    """Name, handler and types of an operation; the docstring of `handle` is its description."""

    name: str
    handle: Callable[[Call, Options], Awaitable[Response]]
    options: type[Options]  # of the query
    offered: tuple[str, ...]  # media types of the response, the default first
    response: type[BaseModel]  # in JSON
    body: dict[str, Any]  # as OpenAPI says it
    headers: Mapping[str, str] = field(default_factory=dict)  # of the response, with a description
