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
        "/interpolate",
        openapi_extra=schemas.INTERPOLATE_BODY,
        responses=schemas.gives(schemas.InterpolateAnswer, *schemas.IMAGES_TOO),
    )
    async def interpolate(
        request: Request,
        model: Annotated[LoadedModel, Depends(target)],
        kind: Annotated[str, Depends(json_npy_or_png)],
        services: ServicesDep,
        timings: TimingsDep,
        query: Annotated[schemas.InterpolationOptions, Query()],
    ) -> Response:
        """Walk from one latent vector to another, or from one image to another."""
        ends, said = await bodies.read_ends(request, services.body_limits)
        options = bodies.options_of(schemas.InterpolationOptions, query.model_dump() | said)
        drawn = await services.operations.interpolate(model, ends, options.steps, options.method, timings)
        return await answers.render(
            timings, lambda: answers.images(kind, model, list(drawn.images), latents=drawn.latents)
        )

    return routes
