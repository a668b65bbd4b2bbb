"""Services of the application, and the dependencies of FastAPI's routes on them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.api.requests import BodyLimits
from service.api.security import ApiKeys
from service.operations import Operations
from service.registry.loaded_model import LoadedModel
from service.registry.registry import ModelRegistry
from service.scheduling.admission import Admission
from service.scheduling.executor import DeviceExecutor
from service.telemetry.metrics import Metrics


@dataclass(frozen=True)
class Services:
    """Parts of the application, built by the composition root."""

    registry: ModelRegistry
    admission: Admission
    executor: DeviceExecutor
    operations: Operations
    api_keys: ApiKeys
    body_limits: BodyLimits
    metrics: Metrics


ModelPath = Annotated[str, Path(description="A model's name.")]
VersionPath = Annotated[str, Path(description="One of the model's versions.")]
FindModel = Callable[..., Awaitable[LoadedModel]]  # a dependency on the parameters of a path
Guard = Callable[..., Awaitable[None]]

_bearer = HTTPBearer(
    auto_error=False, description="Needed only where the service was started with API keys."
)


def newest(registry: ModelRegistry) -> FindModel:
    """The dependency that finds the newest version of the model in the path."""

    async def find(model: ModelPath) -> LoadedModel:
        return registry.get(model)

    return find


def exact(registry: ModelRegistry) -> FindModel:
    """The dependency that finds the version of the model in the path."""

    async def find(model: ModelPath, version: VersionPath) -> LoadedModel:
        return registry.get(model, version)

    return find


def guard(api_keys: ApiKeys) -> Guard:
    """The dependency of every route that needs a key, whatever operations it opens."""

    async def check(
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> None:
        api_keys.check(credentials.credentials if credentials else None, None)

    return check
