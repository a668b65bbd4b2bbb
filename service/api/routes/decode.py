from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from service.api import answers, bodies, schemas
from service.api.dependencies import Call, Target, calls
from service.api.negotiation import PICTURES


def router(target: Target) -> APIRouter:
    routes = APIRouter()

    @routes.post(
        "/decode",
        openapi_extra=schemas.LATENTS_BODY,
        responses=schemas.gives(schemas.ImagesAnswer, *schemas.IMAGES_TOO),
    )
    async def decode(
        call: Annotated[Call, Depends(calls(target, PICTURES))], _: Annotated[schemas.NoOptions, Query()]
    ) -> Response:
        """Make images of latent vectors."""
        latents = await bodies.read_latents(call.request, call.services.body_limits)
        images = await call.services.operations.decode(call.model, latents, call.timings)
        return await call.render(lambda: answers.images(call.kind, call.model, list(images)))

    return routes
