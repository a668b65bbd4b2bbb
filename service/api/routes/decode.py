from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from service.api import answers, bodies, schemas
from service.api.dependencies import ServicesDep, Target, TimingsDep
from service.api.negotiation import json_npy_or_png
from service.registry import LoadedModel


def router(target: Target) -> APIRouter:
    routes = APIRouter()

    @routes.post(
        "/decode",
        openapi_extra=schemas.LATENTS_BODY,
        responses=schemas.gives(schemas.ImagesAnswer, *schemas.IMAGES_TOO),
    )
    async def decode(
        request: Request,
        model: Annotated[LoadedModel, Depends(target)],
        kind: Annotated[str, Depends(json_npy_or_png)],
        services: ServicesDep,
        timings: TimingsDep,
        _: Annotated[schemas.NoOptions, Query()],
    ) -> Response:
        """Make images of latent vectors."""
        latents = await bodies.read_latents(request, services.body_limits)
        images = await services.operations.decode(model, latents, timings)
        return await answers.render(timings, lambda: answers.images(kind, model, list(images)))

    return routes
