"""Operation that scores how anomalous images are."""

import numpy as np
from starlette.responses import Response

from service.api import responses, schemas
from service.api.media_types import NPY, VECTOR_TYPES
from service.api.operation import Call, Operation
from service.operations import NO_PICTURES, Pictures


async def anomaly_score(call: Call, options: schemas.ScoreOptions) -> Response:
    """Score how anomalous images are, and call each normal or anomalous.

    The score is compared with those of the normal images that calibrated the model. The p-value is
    the share of these that score at least as high. An image is anomalous if its p-value is at most
    `false_positive_rate`. If the calibration does not allow the rate, there is no verdict: `reason`
    names the minimum.

    The response holds a verdict for each image, in their order, and its heatmap and regions if
    requested. As npy, it holds the scores only: float32 (n,).
    """
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
    schemas.ScoreResponse,
    schemas.IMAGES_BODY,
    "Score how anomalous images are",
)
