"""Operations of a model, declared once: `endpoint` serves and `openapi` documents them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel
from starlette.responses import Response

from service.api import requests
from service.api.dependencies import Services
from service.api.requests import IncomingRequest
from service.operations import EncodedImages, Operations, Timings
from service.registry.served_model import ServedModel

Options = TypeVar("Options", bound=BaseModel)

MAX_INLINE_PNG_PIXELS = 4096  # PNGs up to this size are written before a thread would start


async def render(timings: Timings, make: Callable[[], Response], size: int = 0) -> Response:
    """Make a response, in a thread if it is larger than `MAX_INLINE_PNG_PIXELS`.

    `size` is the number of pixels, of bytes or of numbers. The time counts as encoding.
    """
    with timings.measure("encode"):
        return make() if size <= MAX_INLINE_PNG_PIXELS else await asyncio.to_thread(make)


class Call(NamedTuple):
    """One request to an operation of a model, with all that its handler needs."""

    request: IncomingRequest
    model: ServedModel
    media_type: str  # of the response
    services: Services
    operations: Operations  # for the client
    timings: Timings

    async def read_images(self) -> EncodedImages:
        """Read the images in the body. Raises as `requests.read_images` does."""
        return await requests.read_images(self.request, self.services.body_limits)

    async def render(self, make: Callable[[], Response], pixels: int = 0) -> Response:
        """Make the response as `render` does."""
        return await render(self.timings, make, pixels)


@dataclass(frozen=True, eq=False)
class Operation(Generic[Options]):
    """Name, handler and types of an operation; the docstring of `handle` is its description."""

    name: str
    handle: Callable[[Call, Options], Awaitable[Response]]
    options: type[Options]  # of the query
    offered: tuple[str, ...]  # media types of the response, the default first
    response: type[BaseModel]  # in JSON
    body: dict[str, Any]  # in OpenAPI
    summary: str  # of a few words
    headers: Mapping[str, str] = field(default_factory=dict)  # of the response, with descriptions
