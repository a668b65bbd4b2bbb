"""Operation that scores how anomalous images are."""

import numpy as np
from starlette.responses import Response

from service.api import responses, schemas
from service.api.media_types import NPY, VECTOR_TYPES
from service.api.operation import Call, Operation
from service.operations import NO_PICTURES, Pictures


async def anomaly_score(call: Call, options: schemas.ScoreOptions) -> Response:
    """Score how anomalous images are, with p-values against normal images."""
    images = await call.read_images()
    scored = await call.operations.score(
        call.model,
        images,
        call.timings,
        options.false_positive_rate,
        _choose_pictures(call, options),
    )

    def make() -> Response:
        if call.media_type == NPY:
            scores = [verdict.score for verdict in scored.verdicts]
            return responses.render_npy(np.array(scores, dtype=np.float32))
        return responses.render_json(
            call.model,
            scored.warnings,
            results=responses.format_scores(scored),
            false_positive_rate=scored.false_positive_rate,
            method=scored.method,
        )

    pictures = [each.overlay or each.heatmap or b"" for each in scored.localised or []]
    return await call.render(make, sum(map(len, pictures)))


def _choose_pictures(call: Call, options: schemas.ScoreOptions) -> Pictures:
    if call.media_type == NPY:
        return NO_PICTURES
    return Pictures(heatmap=options.heatmap is True, overlay=options.heatmap == "overlay")


OPERATION = Operation(
    "anomaly-score",
    anomaly_score,
    schemas.ScoreOptions,
    VECTOR_TYPES,
    schemas.ScoreAnswer,
    schemas.IMAGES_BODY,
)
