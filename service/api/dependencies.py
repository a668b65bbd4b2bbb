"""What routes are handed: the application's state, the model that the path names, the request's clock."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, TypedDict

from fastapi import Depends, Path, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.api import bodies
from service.api.bodies import BodyLimits
from service.api.negotiation import choose
from service.api.security import ApiKeys
from service.inference.executor import DeviceExecutor
from service.operations import EncodedImages, Operations, Timings
from service.registry import LoadedModel, ModelRegistry


@dataclass(frozen=True)
class Services:
    """What the composition root built."""

    registry: ModelRegistry
    executor: DeviceExecutor
    operations: Operations
    api_keys: ApiKeys
    body_limits: BodyLimits


class State(TypedDict):
    """What the lifespan yields."""

    services: Services


async def get_services(request: Request) -> Services:
    services: Services = request.state.services
    return services


Target = Callable[..., Awaitable[LoadedModel]]  # a dependency that finds the model
ServicesDep = Annotated[Services, Depends(get_services)]

_bearer = HTTPBearer(auto_error=False, description="Needed only where the service was started with API keys.")

ModelPath = Annotated[str, Path(description="A model's name.")]
VersionPath = Annotated[str, Path(description="One of the model's versions.")]


async def newest(model: ModelPath, services: ServicesDep) -> LoadedModel:
    return services.registry.get(model)


async def exact(model: ModelPath, version: VersionPath, services: ServicesDep) -> LoadedModel:
    return services.registry.get(model, version)


@dataclass(frozen=True)
class Call:
    """One request to a model's operation, and the media type that was negotiated for its answer."""

    request: Request
    model: LoadedModel
    kind: str
    services: Services
    timings: Timings

    async def read_images(self) -> EncodedImages:
        return await bodies.read_images(self.request, self.services.body_limits)

    async def render(self, make: Callable[[], Response]) -> Response:
        """Make the answer off the event loop, and count the time as encoding."""
        with self.timings.measure("encode"):
            return await asyncio.to_thread(make)


def calls(target: Target, offered: Sequence[str]) -> Callable[..., Awaitable[Call]]:
    """A dependency that finds the model, and negotiates one of the offered media types before anything is read."""

    async def call(request: Request, model: Annotated[LoadedModel, Depends(target)], services: ServicesDep) -> Call:
        kind = choose(",".join(request.headers.getlist("accept")), offered)
        return Call(request, model, kind, services, request.state.timings)

    return call


async def guard(
    request: Request,
    services: ServicesDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """The dependency of every route that needs a key."""
    operation = request.url.path.rsplit("/", 1)[-1] if request.method == "POST" else None
    services.api_keys.check(credentials.credentials if credentials else None, operation)
