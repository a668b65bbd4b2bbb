import numpy as np
from starlette.responses import Response

from service.api import answers, schemas
from service.api.bodies import NPY
from service.api.negotiation import VECTORS
from service.api.operation import Call, Operation


async def anomaly_score(call: Call, options: schemas.ScoreOptions) -> Response:
    """Score how strange images are, with p-values against normal images."""
    given = await call.read_images()
    rate, localise = options.false_positive_rate, options.heatmap and call.kind != NPY
    scored = await call.services.operations.score(call.model, given, call.timings, rate, localise)

    def make() -> Response:
        if call.kind == NPY:
            return answers.as_npy(np.array([verdict.score for verdict in scored.verdicts], dtype=np.float32))
        results = [verdict._asdict() for verdict in scored.verdicts]
        for result, found in zip(results, scored.localised or [], strict=False):
            result |= answers.localised(found)
        return answers.as_json(call.model, results=results, false_positive_rate=rate, method=scored.method)

    return await call.render(make, sum(found.heatmap.size for found in scored.localised or []))


OPERATION = Operation(
    "anomaly-score", anomaly_score, schemas.ScoreOptions, VECTORS, schemas.ScoreAnswer, schemas.IMAGES_BODY
)
