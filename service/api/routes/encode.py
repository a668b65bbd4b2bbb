from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from service.api import answers, bodies, schemas
from service.api.bodies import NPY
from service.api.dependencies import ServicesDep, Target, TimingsDep
from service.api.negotiation import json_or_npy
from service.registry import LoadedModel


def router(target: Target) -> APIRouter:
    routes = APIRouter()

    @routes.post("/encode", openapi_extra=schemas.IMAGES_BODY, responses=schemas.gives(schemas.EncodeAnswer, NPY))
    async def encode(
        request: Request,
        model: Annotated[LoadedModel, Depends(target)],
        kind: Annotated[str, Depends(json_or_npy)],
        services: ServicesDep,
        timings: TimingsDep,
        options: Annotated[schemas.EncodeOptions, Query()],
    ) -> Response:
        """Embed images: their latent vectors."""
        given = await bodies.read_images(request, services.body_limits)
        encoded = await services.operations.encode(model, given, timings, options.variance)

        def make() -> Response:
            if kind == NPY:
                return answers.as_npy(encoded.latents)
            fields = {"latents": encoded.latents, "log_variances": encoded.log_variances}
            present = {name: vectors for name, vectors in fields.items() if vectors is not None}
            if options.encoding == "base64":
                text = {name: [answers.base64_floats(row) for row in rows] for name, rows in present.items()}
                return answers.as_json(model, **text)
            return answers.as_json(model, **present)

        return await answers.render(timings, make)

    return routes
