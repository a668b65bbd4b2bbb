"""Operation that embeds images."""

from typing import Any

from starlette.responses import Response

from service.api import responses, schemas
from service.api.media_types import NPY, VECTOR_TYPES
from service.api.operation import Call, Operation
from service.operations import EncodeResult


async def encode(call: Call, options: schemas.EncodeOptions) -> Response:
    """Turn images into latent vectors: embeddings for search, retrieval and classification.

    The response holds a vector of `latent_dim` numbers for each image, in their order. As npy, it
    holds float32 (n, latent_dim).

    The field `encoder` and the header `X-Encoder` hold the digest of the encoder. Vectors of
    different digests are never comparable.
    """
    images = await call.read_images()
    encoded = await call.operations.encode(call.model, images, call.timings, options.variance)
    encoder = call.model.manifest.encoder

    def make() -> Response:
        if call.media_type == NPY:
            response = responses.render_npy(encoded.latents)
        else:
            vectors = _format_vectors(encoded, options.encoding == "base64")
            response = responses.render_json(
                call.model, encoded.warnings, **vectors, encoder=encoder
            )
        response.headers["X-Encoder"] = str(encoder)
        return response

    return await call.render(make)


def _format_vectors(encoded: EncodeResult, base64: bool) -> dict[str, Any]:
    """Return the computed vectors by their names in JSON."""
    fields = {"latents": encoded.latents, "log_variances": encoded.log_variances}
    present = {name: vectors for name, vectors in fields.items() if vectors is not None}
    if not base64:
        return dict(present)
    floats = responses.encode_base64_floats
    return {name: [floats(row) for row in rows] for name, rows in present.items()}


OPERATION = Operation(
    "encode",
    encode,
    schemas.EncodeOptions,
    VECTOR_TYPES,
    schemas.EncodeResponse,
    schemas.IMAGES_BODY,
    "Encode images",
    headers=schemas.ENCODER_HEADER,
)
