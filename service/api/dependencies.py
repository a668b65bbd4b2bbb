"""What routes are handed: the application's state, the model that the path names, the request's clock."""

from dataclasses import dataclass
from typing import Annotated, TypedDict

from fastapi import Depends, Path, Request

from service.inference.executor import DeviceExecutor
from service.operations import Operations, Timings
from service.registry import LoadedModel, ModelRegistry


@dataclass(frozen=True)
class Services:
    """What the composition root built."""

    registry: ModelRegistry
    executor: DeviceExecutor
    operations: Operations
    max_body_bytes: int


class State(TypedDict):
    """What the lifespan yields."""

    services: Services


def get_services(request: Request) -> Services:
    services: Services = request.state.services
    return services


def get_timings(request: Request) -> Timings:
    timings: Timings = request.state.timings
    return timings


ServicesDep = Annotated[Services, Depends(get_services)]
TimingsDep = Annotated[Timings, Depends(get_timings)]

ModelPath = Annotated[str, Path(description="A model's name.", examples=["mnist-vae"])]
VersionPath = Annotated[str, Path(description="One of the model's versions.", examples=["1"])]


def newest(model: ModelPath, services: ServicesDep) -> LoadedModel:
    return services.registry.get(model)


def exact(model: ModelPath, version: VersionPath, services: ServicesDep) -> LoadedModel:
    return services.registry.get(model, version)
