"""Liveness and readiness probes."""

from fastapi import APIRouter, Response

from service.api import schemas
from service.api.dependencies import Services


def build_router(services: Services) -> APIRouter:
    """Return the routes of both probes."""
    routes = APIRouter()

    @routes.get(
        "/livez",
        response_model_exclude_none=True,
        responses={503: {"model": schemas.Health, "description": "The device is lost."}},
    )
    async def livez(response: Response) -> schemas.Health:
        """Respond with 200 while the process can serve."""
        if services.executor.lost:
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

        `models` can serve, and `open` are those whose graphs are open: tested and warmed up. The
        others are opened when they are first used. `failed` holds the reasons for other models.
        """
        models = {name: services.registry.versions(name) for name in services.registry.names()}
        opened: dict[str, list[int]] = {}
        for model in services.open_models.list():
            opened.setdefault(model.manifest.name, []).append(model.manifest.version)
        status = services.find_status()
        response.status_code = 200 if status == "ready" else 503
        failed = services.registry.failures()
        return schemas.Health(status=status, models=models, open=opened, failed=failed)

    return routes
