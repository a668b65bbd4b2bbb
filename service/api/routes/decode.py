"""Operation that decodes latent vectors."""

from starlette.responses import Response

from service.api import requests, responses, schemas
from service.api.media_types import PICTURE_TYPES
from service.api.operation import Call, Operation


async def decode(call: Call, _: schemas.NoOptions) -> Response:
    """Make images of latent vectors."""
    latents = await requests.read_latents(call.request, call.services.body_limits)
    images = await call.operations.decode(call.model, latents, call.timings)
    return await call.render(
        lambda: responses.render_images(call.media_type, call.model, list(images)), images.size
    )


OPERATION = Operation(
    "decode", decode, schemas.NoOptions, PICTURE_TYPES, schemas.ImagesAnswer, schemas.LATENTS_BODY
)
