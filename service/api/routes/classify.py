"""Operation that classifies images."""

from starlette.responses import Response

from service.api import responses, schemas
from service.api.media_types import NPY, VECTOR_TYPES
from service.api.operation import Call, Operation


async def classify(call: Call, _: schemas.NoOptions) -> Response:
    """Find the class of each image, and the probability of every class.

    The response holds a result for each image, in their order. As npy, it holds the probabilities
    only: float32 (n, classes), in the order of the card's `classes`.
    """
    images = await call.read_images()
    result = await call.operations.classify(call.model, images, call.timings)

    def make() -> Response:
        if call.media_type == NPY:
            return responses.render_npy(result.probabilities)
        return responses.render_json(
            call.model, result.warnings, results=responses.format_classes(result)
        )

    return await call.render(make)


OPERATION = Operation(
    "classify",
    classify,
    schemas.NoOptions,
    VECTOR_TYPES,
    schemas.ClassifyResponse,
    schemas.IMAGES_BODY,
    "Classify images",
)
