from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from service.api import answers, bodies, schemas
from service.api.dependencies import Call, Target, calls
from service.api.negotiation import PICTURES


def router(target: Target) -> APIRouter:
    routes = APIRouter()

    @routes.post(
        "/sample",
        openapi_extra=schemas.SAMPLE_BODY,
        responses=schemas.gives(schemas.SampleAnswer, *schemas.IMAGES_TOO),
    )
    async def sample(
        call: Annotated[Call, Depends(calls(target, PICTURES))], _: Annotated[schemas.NoOptions, Query()]
    ) -> Response:
        """Draw new images; the same seed, count and temperature give the same bytes."""
        asked = await bodies.read_options(call.request, call.services.body_limits, schemas.SampleRequest)
        drawn, seed = await call.services.operations.sample(
            call.model, asked.count, asked.seed, asked.temperature, call.timings
        )

        def make() -> Response:
            images = list(drawn.images)
            answer = answers.images(call.kind, call.model, images, latents=drawn.latents, seed=seed)
            answer.headers["X-Seed"] = str(seed)  # for answers that are no JSON
            return answer

        return await call.render(make)

    return routes
