from starlette.responses import Response

from service.api import responses, schemas
from service.api.media_types import PICTURES
from service.api.operation import Call, Operation


async def denoise(call: Call, options: schemas.SizeOptions) -> Response:
    """Remove the noise that the model was trained on."""
    given, original = await call.read_images(), options.size == "original"
    found = await call.services.operations.denoise(call.model, given, call.timings, original)

    def make() -> Response:
        images = responses.at_size(
            original, found.images, found.original_sizes, call.model.manifest.input
        )
        return responses.images(call.media_type, call.model, images, warnings=found.warnings)

    return await call.render(make, responses.pixels(original, found.images, found.original_sizes))


OPERATION = Operation(
    "denoise", denoise, schemas.SizeOptions, PICTURES, schemas.ImagesAnswer, schemas.IMAGES_BODY
)
