"""Operation that reconstructs images."""

from starlette.responses import Response

from service.api import responses, schemas
from service.api.media_types import PICTURE_TYPES
from service.api.operation import Call, Operation


async def reconstruct(call: Call, options: schemas.SizeOptions) -> Response:
    """Encode and decode images, and measure the error of each reconstruction.

    The response holds a reconstruction and its mean squared error for each image, in their order.
    As npy, it holds the images only: uint8 (n, height, width, channels). As PNG, it holds one
    picture, in which the images are tiled row by row. `size=original` gives each image the size of
    its input; images of several sizes need JSON.
    """
    encoded, original = await call.read_images(), options.size == "original"
    result = await call.operations.reconstruct(call.model, encoded, call.timings, original)

    def make() -> Response:
        images = responses.restore_sizes(
            original, result.images, result.original_sizes, call.model.manifest.input
        )
        fields = {"errors": result.errors, "warnings": result.warnings}
        return responses.render_images(call.media_type, call.model, images, **fields)

    return await call.render(
        make, responses.count_pixels(original, result.images, result.original_sizes)
    )


OPERATION = Operation(
    "reconstruct",
    reconstruct,
    schemas.SizeOptions,
    PICTURE_TYPES,
    schemas.ReconstructResponse,
    schemas.IMAGES_BODY,
    "Reconstruct images",
)
