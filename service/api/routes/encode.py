from starlette.responses import Response

from service.api import answers, schemas
from service.api.bodies import NPY
from service.api.negotiation import VECTORS
from service.api.operation import Call, Operation


async def encode(call: Call, options: schemas.EncodeOptions) -> Response:
    """Embed images: their latent vectors."""
    given = await call.read_images()
    encoded = await call.services.operations.encode(call.model, given, call.timings, options.variance)

    def make() -> Response:
        if call.kind == NPY:
            return answers.as_npy(encoded.latents)
        fields = {"latents": encoded.latents, "log_variances": encoded.log_variances}
        present = {name: vectors for name, vectors in fields.items() if vectors is not None}
        if options.encoding == "base64":
            text = {name: [answers.base64_floats(row) for row in rows] for name, rows in present.items()}
            return answers.as_json(call.model, **text)
        return answers.as_json(call.model, **present)

    return await call.render(make)


OPERATION = Operation("encode", encode, schemas.EncodeOptions, VECTORS, schemas.EncodeAnswer, schemas.IMAGES_BODY)
