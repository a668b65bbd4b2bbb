from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from service.api import answers, schemas
from service.api.bodies import NPY
from service.api.dependencies import Call, Target, calls
from service.api.negotiation import VECTORS


def router(target: Target) -> APIRouter:
    routes = APIRouter()

    @routes.post("/classify", openapi_extra=schemas.IMAGES_BODY, responses=schemas.gives(schemas.ClassifyAnswer, NPY))
    async def classify(
        call: Annotated[Call, Depends(calls(target, VECTORS))], _: Annotated[schemas.NoOptions, Query()]
    ) -> Response:
        """Name the class of images; as npy the probabilities alone, in the order of the card's `classes`."""
        given = await call.read_images()
        found = await call.services.operations.classify(call.model, given, call.timings)

        def make() -> Response:
            if call.kind == NPY:
                return answers.as_npy(found.probabilities)
            return answers.as_json(call.model, results=answers.classified(found))

        return await call.render(make)

    return routes
