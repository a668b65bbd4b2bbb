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
        "/denoise",
        openapi_extra=schemas.IMAGES_BODY,
        responses=schemas.gives(schemas.ImagesAnswer, *schemas.IMAGES_TOO),
    )
    async def denoise(
        request: Request,
        model: Annotated[LoadedModel, Depends(target)],
        kind: Annotated[str, Depends(json_npy_or_png)],
        services: ServicesDep,
        timings: TimingsDep,
        options: Annotated[schemas.SizeOptions, Query()],
    ) -> Response:
        """Remove the noise that the model was trained on."""
        given = await bodies.read_images(request, services.body_limits)
        original = options.size == "original"
        found = await services.operations.denoise(model, given, timings, original)

        def make() -> Response:
            images = answers.at_size(original, found.images, found.original_sizes, model.manifest.input)
            return answers.images(kind, model, images)

        return await answers.render(timings, make)

    return routes
