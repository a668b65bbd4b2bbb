"""Liveness and readiness probes."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Response

from service.api import schemas
from service.api.dependencies import Services


def build_router(services: Services) -> APIRouter:
    """Return the routes of both probes."""
    routes = APIRouter()

    @services.peers.answers("health")
    async def check(_: object) -> dict[str, Any]:
        models = {name: services.registry.versions(name) for name in services.registry.names()}
        opened: dict[str, list[int]] = {}
        for model in services.open_models.list():
            opened.setdefault(model.manifest.name, []).append(model.manifest.version)
        status, failed = services.find_status(), services.registry.failures()
        health = schemas.Health(status=status, models=models, open=opened, failed=failed)
        return health.model_dump()

    @routes.get(
        "/livez",
        summary="Check that the process lives",
        response_model_exclude_none=True,
        responses={503: {"model": schemas.Health, "description": "The device is lost; restart."}},
    )
    async def get_liveness(response: Response) -> schemas.Health:
        """Check that the process can serve: 200 if it can, else 503.

        It is a liveness probe: restart the process after 503. It needs no API key.
        """
        if services.executor.lost:
            response.status_code = 503
            return schemas.Health(status="device lost")
        return schemas.Health(status="ok")

    @routes.get(
        "/readyz",
        summary="Check that requests are admitted",
        response_model_exclude_none=True,
        responses={
            503: {
                "model": schemas.Health,
                "description": "No model can serve, the service drains, or the device is lost.",
            }
        },
    )
    async def get_readiness(response: Response) -> schemas.Health:
        """Check that requests are admitted: 200 if they are, else 503.

        It is a readiness probe: send no requests after 503. It needs no API key. The response lists
        the models that can serve, those that are open, and the reasons of those that failed.
        """
        found = await services.peers.ask("health")
        workers = [schemas.Health(**each) for each in found.values()]
        health = _combine(workers) if services.peers.worker.others else workers[0]
        response.status_code = 200 if health.status == "ready" else 503
        return health

    return routes


def _combine(workers: Sequence[schemas.Health]) -> schemas.Health:
    """Return the health of all workers, of which the first was asked.

    A version can serve if it can in each worker that is ready, and is open if it is in any.
    """
    ready = [each for each in workers if each.status == "ready"]
    versions = [each.models or {} for each in ready or workers[:1]]
    common = {
        name: [
            version for version in first if all(version in each.get(name, ()) for each in versions)
        ]
        for name, first in versions[0].items()
    }
    opened: dict[str, list[int]] = {}
    for name, found in (item for each in ready for item in (each.open or {}).items()):
        opened[name] = sorted({*opened.get(name, ()), *found})
    return schemas.Health(
        status="ready" if ready else workers[0].status,
        models={name: found for name, found in common.items() if found},
        open=opened,
        failed={key: why for each in workers for key, why in (each.failed or {}).items()},
        workers=len(ready),
    )
