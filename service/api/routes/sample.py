from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from service.api import answers, bodies, schemas
from service.api.dependencies import ServicesDep, TimingsDep
from service.api.negotiation import json_npy_or_png
from service.registry import LoadedModel


def router(target: Callable[..., LoadedModel]) -> APIRouter:
    routes = APIRouter()

    @routes.post(
        "/sample",
        openapi_extra=schemas.SAMPLE_BODY,
        responses=schemas.gives(schemas.SampleAnswer, *schemas.IMAGES_TOO),
    )
    async def sample(
        request: Request,
        model: Annotated[LoadedModel, Depends(target)],
        kind: Annotated[str, Depends(json_npy_or_png)],
        services: ServicesDep,
        timings: TimingsDep,
    ) -> Response:
        """Draw new images; the same seed, count and temperature give the same bytes."""
        options = bodies.options_of(schemas.SampleRequest, await bodies.read_json(request, services.max_body_bytes))
        drawn, seed = await services.operations.sample(model, options.count, options.seed, options.temperature, timings)
        return await answers.render(
            timings, lambda: answers.images(kind, model, list(drawn.images), latents=drawn.latents, seed=seed)
        )

    return routes
