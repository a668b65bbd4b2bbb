from fastapi import APIRouter, Response

from service.api import schemas
from service.api.dependencies import ServicesDep


def router() -> APIRouter:
    routes = APIRouter()

    @routes.get("/livez", response_model_exclude_none=True)
    async def livez() -> schemas.Health:
        """Whether the process answers."""
        return schemas.Health(status="ok")

    @routes.get(
        "/readyz",
        response_model_exclude_none=True,
        responses={503: {"model": schemas.Health, "description": "No model is loaded, or the service is draining."}},
    )
    async def readyz(services: ServicesDep, response: Response) -> schemas.Health:
        """Whether requests can be taken: which models are loaded, warmed and tested, and why others are left out."""
        registry = services.registry
        models = {name: registry.versions(name) for name in registry.names()}
        ready = bool(models) and not services.executor.draining
        response.status_code = 200 if ready else 503
        status = "ready" if ready else "draining" if services.executor.draining else "not ready"
        return schemas.Health(status=status, models=models, failed=registry.failures())

    return routes
