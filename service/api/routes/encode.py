from typing import Any

from starlette.responses import Response

from service.api import responses, schemas
from service.api.media_types import NPY, VECTORS
from service.api.operation import Call, Operation
from service.operations import Encoded


async def encode(call: Call, options: schemas.EncodeOptions) -> Response:
    """Embed images: their latent vectors.

    The field `encoder` and the header `X-Encoder` name the encoder by its digest: vectors of
    different digests are never comparable.
    """
    given = await call.read_images()
    encoded = await call.services.operations.encode(
        call.model, given, call.timings, options.variance
    )
    encoder = call.model.manifest.encoder

    def make() -> Response:
        if call.media_type == NPY:
            answer = responses.as_npy(encoded.latents)
        else:
            vectors = _vectors(encoded, options.encoding == "base64")
            answer = responses.as_json(call.model, encoded.warnings, **vectors, encoder=encoder)
        answer.headers["X-Encoder"] = str(encoder)
        return answer

    return await call.render(make)


def _vectors(encoded: Encoded, base64: bool) -> dict[str, Any]:
    """The vectors that were asked for, by their names in JSON."""
    fields = {"latents": encoded.latents, "log_variances": encoded.log_variances}
    present = {name: vectors for name, vectors in fields.items() if vectors is not None}
    if not base64:
        return dict(present)
    floats = responses.base64_floats
    return {name: [floats(row) for row in rows] for name, rows in present.items()}


OPERATION = Operation(
    "encode",
    encode,
    schemas.EncodeOptions,
    VECTORS,
    schemas.EncodeAnswer,
    schemas.IMAGES_BODY,
    headers={"X-Encoder": schemas.ENCODER},
)
