"""Liveness and readiness probes."""

from fastapi import APIRouter, Response

from service.api import schemas
from service.registry.registry import ModelRegistry
from service.scheduling.admission import Admission


def build_router(registry: ModelRegistry, admission: Admission) -> APIRouter:
    """Return the routes of both probes."""
    routes = APIRouter()

    @routes.get("/livez", response_model_exclude_none=True)
    async def livez() -> schemas.Health:
        """Respond while the process runs."""
        return schemas.Health(status="ok")

    @routes.get(
        "/readyz",
        response_model_exclude_none=True,
        responses={
            503: {
                "model": schemas.Health,
                "description": "No model is loaded, or the service is draining.",
            }
        },
    )
    async def readyz(response: Response) -> schemas.Health:
        """Respond with 200 if requests are admitted.

        `models` are loaded, warmed up and tested; `failed` holds the reasons for other models.
        """
        models = {name: registry.versions(name) for name in registry.names()}
        ready = bool(models) and not admission.leaving
        response.status_code = 200 if ready else 503
        status = "ready" if ready else "draining" if admission.leaving else "not ready"
        return schemas.Health(status=status, models=models, failed=registry.failures())

    return routes
