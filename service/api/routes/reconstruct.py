from starlette.responses import Response

from service.api import responses, schemas
from service.api.media_types import PICTURES
from service.api.operation import Call, Operation


async def reconstruct(call: Call, options: schemas.SizeOptions) -> Response:
    """Encode and decode images, and say how much was lost."""
    given, original = await call.read_images(), options.size == "original"
    found = await call.services.operations.reconstruct(call.model, given, call.timings, original)

    def make() -> Response:
        images = responses.at_size(
            original, found.images, found.original_sizes, call.model.manifest.input
        )
        fields = {"errors": found.errors, "warnings": found.warnings}
        return responses.images(call.media_type, call.model, images, **fields)

    return await call.render(make, responses.pixels(original, found.images, found.original_sizes))


OPERATION = Operation(
    "reconstruct",
    reconstruct,
    schemas.SizeOptions,
    PICTURES,
    schemas.ReconstructAnswer,
    schemas.IMAGES_BODY,
)
