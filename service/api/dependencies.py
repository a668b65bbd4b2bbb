"""What FastAPI's routes are handed: the application's state, and the model that the path names."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, TypedDict

from fastapi import Depends, Path, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.api.requests import BodyLimits
from service.api.security import ApiKeys
from service.operations import Operations
from service.registry.loaded_model import LoadedModel
from service.registry.registry import ModelRegistry
from service.scheduling.executor import DeviceExecutor
from service.telemetry.metrics import Metrics


@dataclass(frozen=True)
class Services:
    """What the composition root built."""

    registry: ModelRegistry
    executor: DeviceExecutor
    operations: Operations
    api_keys: ApiKeys
    body_limits: BodyLimits
    metrics: Metrics


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


async def guard(
    services: ServicesDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """The dependency of every route that needs a key, whatever it opens."""
    services.api_keys.check(credentials.credentials if credentials else None, None)
