"""Operation that classifies images."""

from starlette.responses import Response

from service.api import responses, schemas
from service.api.media_types import NPY, VECTOR_TYPES
from service.api.operation import Call, Operation


async def classify(call: Call, _: schemas.NoOptions) -> Response:
    """Name the class of images.

    As npy only the probabilities, in the order of the card's `classes`.
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
    schemas.ClassifyAnswer,
    schemas.IMAGES_BODY,
)
