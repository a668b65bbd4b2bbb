from starlette.responses import Response

from service.api import requests, responses, schemas
from service.api.media_types import PICTURES
from service.api.operation import Call, Operation


async def sample(call: Call, _: schemas.NoOptions) -> Response:
    """Draw new images; the same seed, count and temperature give the same bytes."""
    asked = await requests.read_options(
        call.request, call.services.body_limits, schemas.SampleRequest
    )
    drawn, seed = await call.services.operations.sample(
        call.model, asked.count, asked.seed, asked.temperature, call.timings
    )

    def make() -> Response:
        images = list(drawn.images)
        answer = responses.images(
            call.media_type, call.model, images, latents=drawn.latents, seed=seed
        )
        answer.headers["X-Seed"] = str(seed)  # for answers that are no JSON
        return answer

    return await call.render(make, drawn.images.size)


OPERATION = Operation(
    "sample", sample, schemas.NoOptions, PICTURES, schemas.SampleAnswer, schemas.SAMPLE_BODY
)
