from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from service.api import answers, bodies, schemas
from service.api.dependencies import ServicesDep, TimingsDep
from service.api.negotiation import json_npy_or_png
from service.registry import LoadedModel


def router(target: Callable[..., LoadedModel]) -> APIRouter:
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
        size: Annotated[answers.Size, Query(description="The model's own size, or each input's.")] = "model",
    ) -> Response:
        """Remove the noise that the model was trained on."""
        given = await bodies.read_images(request, services.max_body_bytes)
        found = await services.operations.denoise(model, given, timings)
        if size == "original":
            services.operations.check_output(found.original_sizes)

        def make() -> Response:
            images = answers.at_size(size, found.images, found.original_sizes, model.manifest.input)
            return answers.images(kind, model, images)

        return await answers.render(timings, make)

    return routes
