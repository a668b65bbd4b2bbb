from dataclasses import asdict
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from service.api import answers, bodies, schemas
from service.api.bodies import NPY
from service.api.dependencies import ServicesDep, Target, TimingsDep
from service.api.negotiation import json_or_npy
from service.registry import LoadedModel


def router(target: Target) -> APIRouter:
    routes = APIRouter()

    @routes.post("/anomaly-score", openapi_extra=schemas.IMAGES_BODY, responses=schemas.gives(schemas.ScoreAnswer, NPY))
    async def anomaly_score(
        request: Request,
        model: Annotated[LoadedModel, Depends(target)],
        kind: Annotated[str, Depends(json_or_npy)],
        services: ServicesDep,
        timings: TimingsDep,
        options: Annotated[schemas.ScoreOptions, Query()],
    ) -> Response:
        """Score how strange images are, with p-values against normal images."""
        given = await bodies.read_images(request, services.body_limits)
        rate, localise = options.false_positive_rate, options.heatmap and kind != NPY
        scored = await services.operations.score(model, given, timings, rate, localise)

        def make() -> Response:
            if kind == NPY:
                return answers.as_npy(np.array([verdict.score for verdict in scored.verdicts], dtype=np.float32))
            results = [asdict(verdict) for verdict in scored.verdicts]
            for result, found in zip(results, scored.localised or [], strict=False):
                result |= answers.localised(found)
            method = model.manifest.calibration.method if model.manifest.calibration else None
            return answers.as_json(model, results=results, false_positive_rate=rate, method=method)

        return await answers.render(timings, make)

    return routes
