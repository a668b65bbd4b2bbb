"""Operation that draws new images."""

from starlette.responses import Response

from service.api import requests, responses, schemas
from service.api.media_types import PICTURE_TYPES
from service.api.operation import Call, Operation


async def sample(call: Call, _: schemas.NoOptions) -> Response:
    """Draw new images from the model's prior.

    The same seed, count and temperature give the same bytes. The response holds `count` images at
    the model's size, their latent vectors and the seed. As npy, it holds the images only: uint8
    (count, height, width, channels). As PNG, it holds one picture, in which the images are tiled
    row by row. The header `X-Seed` names the seed of both.
    """
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
    "sample",
    sample,
    schemas.NoOptions,
    PICTURE_TYPES,
    schemas.SampleResponse,
    schemas.SAMPLE_BODY,
    "Sample new images",
    headers={"X-Seed": "Seed of the random generator that drew the images."},
)
