from dataclasses import asdict
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from service.api import answers, schemas
from service.api.bodies import NPY
from service.api.dependencies import Call, Target, calls
from service.api.negotiation import VECTORS


def router(target: Target) -> APIRouter:
    routes = APIRouter()

    @routes.post("/anomaly-score", openapi_extra=schemas.IMAGES_BODY, responses=schemas.gives(schemas.ScoreAnswer, NPY))
    async def anomaly_score(
        call: Annotated[Call, Depends(calls(target, VECTORS))], options: Annotated[schemas.ScoreOptions, Query()]
    ) -> Response:
        """Score how strange images are, with p-values against normal images."""
        given = await call.read_images()
        rate, localise = options.false_positive_rate, options.heatmap and call.kind != NPY
        scored = await call.services.operations.score(call.model, given, call.timings, rate, localise)

        def make() -> Response:
            if call.kind == NPY:
                return answers.as_npy(np.array([verdict.score for verdict in scored.verdicts], dtype=np.float32))
            results = [asdict(verdict) for verdict in scored.verdicts]
            for result, found in zip(results, scored.localised or [], strict=False):
                result |= answers.localised(found)
            return answers.as_json(call.model, results=results, false_positive_rate=rate, method=scored.method)

        return await call.render(make)

    return routes
