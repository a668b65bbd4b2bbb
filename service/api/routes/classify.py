from starlette.responses import Response

from service.api import responses, schemas
from service.api.media_types import NPY, VECTORS
from service.api.operation import Call, Operation


async def classify(call: Call, _: schemas.NoOptions) -> Response:
    """Name the class of images; as npy the probabilities alone, in the order of the card's `classes`."""
    given = await call.read_images()
    found = await call.services.operations.classify(call.model, given, call.timings)

    def make() -> Response:
        if call.media_type == NPY:
            return responses.as_npy(found.probabilities)
        return responses.as_json(call.model, found.warnings, results=responses.classified(found))

    return await call.render(make)


OPERATION = Operation(
    "classify", classify, schemas.NoOptions, VECTORS, schemas.ClassifyAnswer, schemas.IMAGES_BODY
)
