"""Operation that removes noise from images."""

from starlette.responses import Response

from service.api import responses, schemas
from service.api.media_types import PICTURE_TYPES
from service.api.operation import Call, Operation


async def denoise(call: Call, options: schemas.SizeOptions) -> Response:
    """Remove the noise that the model was trained on.

    The response holds a denoised image for each image, in their order. As npy, it holds uint8
    (n, height, width, channels). As PNG, it holds one picture, in which the images are tiled row by
    row. `size=original` gives each image the size of its input; images of several sizes need JSON.
    """
    encoded, original = await call.read_images(), options.size == "original"
    result = await call.operations.denoise(call.model, encoded, call.timings, original)

    def make() -> Response:
        images = responses.restore_sizes(
            original, result.images, result.original_sizes, call.model.manifest.input
        )
        return responses.render_images(
            call.media_type, call.model, images, warnings=result.warnings
        )

    return await call.render(
        make, responses.count_pixels(original, result.images, result.original_sizes)
    )


OPERATION = Operation(
    "denoise",
    denoise,
    schemas.SizeOptions,
    PICTURE_TYPES,
    schemas.ImagesResponse,
    schemas.IMAGES_BODY,
    "Denoise images",
)
