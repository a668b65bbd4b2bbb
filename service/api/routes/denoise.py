from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from service.api import answers, schemas
from service.api.dependencies import Call, Target, calls
from service.api.negotiation import PICTURES


def router(target: Target) -> APIRouter:
    routes = APIRouter()

    @routes.post(
        "/denoise",
        openapi_extra=schemas.IMAGES_BODY,
        responses=schemas.gives(schemas.ImagesAnswer, *schemas.IMAGES_TOO),
    )
    async def denoise(
        call: Annotated[Call, Depends(calls(target, PICTURES))], options: Annotated[schemas.SizeOptions, Query()]
    ) -> Response:
        """Remove the noise that the model was trained on."""
        given, original = await call.read_images(), options.size == "original"
        found = await call.services.operations.denoise(call.model, given, call.timings, original)

        def make() -> Response:
            images = answers.at_size(original, found.images, found.original_sizes, call.model.manifest.input)
            return answers.images(call.kind, call.model, images)

        return await call.render(make)

    return routes
