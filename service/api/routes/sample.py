"""Operation that draws new images."""

from starlette.responses import Response

from service.api import requests, responses, schemas
from service.api.media_types import PICTURE_TYPES
from service.api.operation import Call, Operation


async def sample(call: Call, _: schemas.NoOptions) -> Response:
    """Draw new images; the same seed, count and temperature give the same bytes."""
    options = await requests.read_options(
        call.request, call.services.body_limits, schemas.SampleRequest
    )
    drawn, seed = await call.operations.sample(
        call.model, options.count, options.seed, options.temperature, call.timings
    )

    def make() -> Response:
        images = list(drawn.images)
        response = responses.render_images(
            call.media_type, call.model, images, latents=drawn.latents, seed=seed
        )
        response.headers["X-Seed"] = str(seed)  # because npy and PNG have no field for it
        return response

    return await call.render(make, drawn.images.size)


OPERATION = Operation(
    "sample", sample, schemas.NoOptions, PICTURE_TYPES, schemas.SampleAnswer, schemas.SAMPLE_BODY
)
