"""Liveness and readiness probes."""

from collections.abc import Mapping

from fastapi import APIRouter, Response

from service.api import schemas
from service.registry.registry import ModelRegistry
from service.scheduling.admission import Admission
from service.scheduling.executor import DeviceExecutor


def build_router(
    registry: ModelRegistry, admission: Admission, executor: DeviceExecutor
) -> APIRouter:
    """Return the routes of both probes."""
    routes = APIRouter()

    @routes.get(
        "/livez",
        response_model_exclude_none=True,
        responses={503: {"model": schemas.Health, "description": "The device is lost."}},
    )
    async def livez(response: Response) -> schemas.Health:
        """Respond with 200 while the process can serve."""
        if executor.lost:
            response.status_code = 503
            return schemas.Health(status="device lost")
        return schemas.Health(status="ok")

    @routes.get(
        "/readyz",
        response_model_exclude_none=True,
        responses={
            503: {
                "model": schemas.Health,
                "description": "No model is loaded, the service drains, or the device is lost.",
            }
        },
    )
    async def readyz(response: Response) -> schemas.Health:
        """Respond with 200 if requests are admitted.

        `models` are loaded, warmed up and tested; `failed` holds the reasons for other models.
        """
        models = {name: registry.versions(name) for name in registry.names()}
        status = _find_status(models, admission, executor)
        response.status_code = 200 if status == "ready" else 503
        return schemas.Health(status=status, models=models, failed=registry.failures())

    return routes


def _find_status(
    models: Mapping[str, object], admission: Admission, executor: DeviceExecutor
) -> schemas.HealthStatus:
    if executor.lost:
        return "device lost"
    if admission.leaving:
        return "draining"
    return "ready" if models else "not ready"
