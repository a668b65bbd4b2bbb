from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from service.api import answers, bodies, schemas
from service.api.dependencies import Call, Target, calls
from service.api.negotiation import PICTURES


def router(target: Target) -> APIRouter:
    routes = APIRouter()

    @routes.post(
        "/interpolate",
        openapi_extra=schemas.INTERPOLATE_BODY,
        responses=schemas.gives(schemas.InterpolateAnswer, *schemas.IMAGES_TOO),
    )
    async def interpolate(
        call: Annotated[Call, Depends(calls(target, PICTURES))], query: Annotated[schemas.InterpolationOptions, Query()]
    ) -> Response:
        """Walk from one latent vector to another, or from one image to another."""
        ends, said = await bodies.read_ends(call.request, call.services.body_limits)
        asked = bodies.options_of(schemas.InterpolationOptions, query.model_dump() | said)
        drawn = await call.services.operations.interpolate(call.model, ends, asked.steps, asked.method, call.timings)
        return await call.render(
            lambda: answers.images(call.kind, call.model, list(drawn.images), latents=drawn.latents)
        )

    return routes
