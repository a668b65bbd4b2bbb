from starlette.responses import Response

from service.api import parsing, requests, responses, schemas
from service.api.media_types import PICTURES
from service.api.operation import Call, Operation


async def interpolate(call: Call, query: schemas.InterpolationOptions) -> Response:
    """Walk from one latent vector to another, or from one image to another."""
    ends, said = await requests.read_ends(call.request, call.services.body_limits)
    asked = parsing.options_of(schemas.InterpolationOptions, query.model_dump() | said)
    drawn = await call.services.operations.interpolate(
        call.model, ends, asked.steps, asked.method, call.timings
    )

    def make() -> Response:
        return responses.images(
            call.media_type, call.model, list(drawn.images), latents=drawn.latents
        )

    return await call.render(make, drawn.images.size)


OPERATION = Operation(
    "interpolate",
    interpolate,
    schemas.InterpolationOptions,
    PICTURES,
    schemas.InterpolateAnswer,
    schemas.INTERPOLATE_BODY,
)
