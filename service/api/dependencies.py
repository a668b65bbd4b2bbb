"""Services of the application, and the FastAPI dependencies that use them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.api.requests import BodyLimits
from service.api.schemas import HealthStatus
from service.api.security import ApiKeys
from service.operations import Operations
from service.registry.open_models import OpenModels
from service.registry.registry import ModelRegistry
from service.registry.served_model import ServedModel
from service.registry.updates import ModelControl, Updates
from service.scheduling.admission import Admission
from service.scheduling.executor import DeviceExecutor
from service.telemetry.logging import AccessLog
from service.telemetry.metrics import Metrics
from service.workers import Peers, Totals


@dataclass(frozen=True)
class Services:
    """Components of the application, built by the composition root."""

    registry: ModelRegistry
    open_models: OpenModels
    updates: Updates
    model_control: ModelControl
    admission: Admission
    executor: DeviceExecutor
    operations: Operations
    api_keys: ApiKeys
    body_limits: BodyLimits
    metrics: Metrics
    access_log: AccessLog
    peers: Peers
    totals: Totals
    playground: bool = True

    def find_status(self) -> HealthStatus:
        """Return the state of the service; only `ready` admits requests."""
        if self.executor.lost:
            return "device lost"
        if self.admission.leaving:
            return "draining"
        return "ready" if self.registry.names() else "not ready"


ModelPath = Annotated[str, Path(description="Name of the model, from `GET /v1/models`.")]
VersionPath = Annotated[
    str, Path(description="Version of the model: a whole number, from the card's `versions`.")
]
FindModel = Callable[..., Awaitable[ServedModel]]  # dependency on path parameters
Guard = Callable[..., Awaitable[None]]

_bearer = HTTPBearer(
    scheme_name="ApiKey",
    auto_error=False,
    description="Key in `Authorization: Bearer KEY`. It is needed only if the service was started "
    "with API keys. The page `/docs` keeps the key in memory, until it is reloaded or closed.",
)


def build_newest_finder(registry: ModelRegistry) -> FindModel:
    """Return the dependency that finds the newest version of the model in the path."""

    async def find(model: ModelPath) -> ServedModel:
        return registry.get(model)

    return find


def build_exact_finder(registry: ModelRegistry) -> FindModel:
    """Return the dependency that finds the exact version of the model in the path."""

    async def find(model: ModelPath, version: VersionPath) -> ServedModel:
        return registry.get(model, version)

    return find


def build_guard(api_keys: ApiKeys, right: str | None = None) -> Guard:
    """Return the dependency of routes that need a key with a right, or with any rights."""

    async def check(
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> None:
        api_keys.check(credentials.credentials if credentials else None, right)

    return check
