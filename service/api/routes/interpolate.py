from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from service.api import answers, bodies, schemas
from service.api.dependencies import ServicesDep, TimingsDep
from service.api.negotiation import json_npy_or_png
from service.registry import LoadedModel


def router(target: Callable[..., LoadedModel]) -> APIRouter:
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
        steps: Annotated[int, Query(description="Images on the path; a JSON body may say it too.")] = 8,
        method: Annotated[
            Literal["linear", "spherical"], Query(description="The path; a JSON body may say it too.")
        ] = "linear",
    ) -> Response:
        """Walk from one latent vector to another, or from one image to another."""
        ends, said = await bodies.read_ends(request, services.max_body_bytes)
        options = bodies.options_of(schemas.InterpolationOptions, {"steps": steps, "method": method} | said)
        drawn = await services.operations.interpolate(model, ends, options.steps, options.method, timings)
        return await answers.render(
            timings, lambda: answers.images(kind, model, list(drawn.images), latents=drawn.latents)
        )

    return routes
