"""Operation that decodes latent vectors."""

from starlette.responses import Response

from service.api import requests, responses, schemas
from service.api.media_types import PICTURE_TYPES
from service.api.operation import Call, Operation


async def decode(call: Call, _: schemas.NoOptions) -> Response:
    """Turn latent vectors into images.

    The request holds vectors of `latent_dim` numbers, such as `encode` returns. The response holds
    an image for each, in their order and at the model's size. As npy, it holds uint8
    (n, height, width, channels). As PNG, it holds one picture, in which the images are tiled row by
    row.
    """
    latents = await requests.read_latents(call.request, call.services.body_limits)
    images = await call.operations.decode(call.model, latents, call.timings)
    return await call.render(
        lambda: responses.render_images(call.media_type, call.model, list(images)), images.size
    )


OPERATION = Operation(
    "decode",
    decode,
    schemas.NoOptions,
    PICTURE_TYPES,
    schemas.ImagesResponse,
    schemas.LATENTS_BODY,
    "Decode latent vectors",
)
