"""Operation that interpolates between latent vectors or images."""

from starlette.responses import Response

from service.api import parsing, requests, responses, schemas
from service.api.media_types import PICTURE_TYPES
from service.api.operation import Call, Operation


async def interpolate(call: Call, query: schemas.InterpolationOptions) -> Response:
    """Show the path from one image to another, or from one latent vector to another.

    The request holds two images or two latent vectors, the ends of the path. The response holds
    `steps` images, in the order of the path, with their latent vectors. The first and the last are
    the reconstructed ends. As npy, it holds the images only: uint8 (steps, height, width,
    channels). As PNG, it holds one picture, in which the images are tiled row by row.
    """
    call.operations.check_count(query.steps)  # even if the body has steps, too
    ends, in_body = await requests.read_ends(call.request, call.services.body_limits)
    options = parsing.validate_options(schemas.InterpolationOptions, query.model_dump() | in_body)
    drawn = await call.operations.interpolate(
        call.model, ends, options.steps, options.method, call.timings
    )

    def make() -> Response:
        return responses.render_images(
            call.media_type, call.model, list(drawn.images), latents=drawn.latents
        )

    return await call.render(make, drawn.images.size)


OPERATION = Operation(
    "interpolate",
    interpolate,
    schemas.InterpolationOptions,
    PICTURE_TYPES,
    schemas.InterpolateResponse,
    schemas.INTERPOLATE_BODY,
    "Interpolate between two images",
)
