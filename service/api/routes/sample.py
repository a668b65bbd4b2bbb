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
        _: Annotated[schemas.NoOptions, Query()],
    ) -> Response:
        """Draw new images; the same seed, count and temperature give the same bytes."""
        options = await bodies.read_options(request, services.body_limits, schemas.SampleRequest)
        drawn, seed = await services.operations.sample(model, options.count, options.seed, options.temperature, timings)
        answer = await answers.render(
            timings, lambda: answers.images(kind, model, list(drawn.images), latents=drawn.latents, seed=seed)
        )
        answer.headers["X-Seed"] = str(seed)  # for answers that are no JSON
        return answer

    return routes
