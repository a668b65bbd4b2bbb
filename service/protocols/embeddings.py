"""Embeddings as OpenAI's clients ask for them; the input is images in data: URLs.

Source: https://platform.openai.com/docs/api-reference/embeddings.
"""

from typing import Any, Literal

import orjson
from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from bundle.errors import InvalidImage, InvalidParameter
from service.api import parsing, requests, responses, tags
from service.api.context import get_context
from service.api.dependencies import Guard, ModelPath, Services
from service.api.endpoint import BoundedEndpoint, route
from service.api.media_types import JSON
from service.api.operation import render
from service.api.requests import IncomingRequest
from service.api.schemas import ENCODER_HEADER, EXAMPLE_IMAGE, SENT_DEFAULTS, describe_headers
from service.errors import ModelNotFound
from service.operations import EncodedImages, EncodeResult, check_count, map_items
from service.registry.registry import ModelRegistry
from service.registry.served_model import ServedModel

PATHS = ("/v1/embeddings", "/openai/v1/embeddings")
MODELS_PATH = "/openai/v1/models"
DEFAULT_MODEL = "photos"
OWNER = "autoencoder-service"


class EmbeddingsRequest(BaseModel):
    """Images to embed."""

    model_config = ConfigDict(extra="forbid")

    input: str | list[str] = Field(
        description="`data:` URL of an image, such as `data:image/png;base64,...`, or a list of "
        "URLs."
    )
    model: str = Field(DEFAULT_MODEL, description="Name of a model that can `encode`.")
    encoding_format: Literal["float", "base64"] = Field(
        "float",
        description="Encoding of a vector: a list of numbers, or little-endian float32 in base64.",
    )
    dimensions: int | None = Field(
        None, description="Numbers in a vector; no other value than the model's own is valid."
    )
    user: str | None = Field(None, description="Ignored.")


class Embedding(BaseModel):
    """Vector of one image."""

    model_config = SENT_DEFAULTS

    object: Literal["embedding"] = Field("embedding", description="Always `embedding`.")
    index: int = Field(description="Position of the image in the input.")
    embedding: list[float] | str = Field(
        description="Vector: a list of numbers, or little-endian float32 in base64."
    )


class EmbeddingsUsage(BaseModel):
    """Images of the request, in the fields of OpenAI's API."""

    prompt_tokens: int = Field(description="Number of images.")
    total_tokens: int = Field(description="Number of images.")


class EmbeddingsResponse(BaseModel):
    """Vectors in the order of the input."""

    model_config = SENT_DEFAULTS

    object: Literal["list"] = Field("list", description="Always `list`.")
    data: list[Embedding] = Field(description="Vector of each image.")
    model: str = Field(description="Name of the model.")
    usage: EmbeddingsUsage = Field(description="Size of the request.")


class EmbeddingModel(BaseModel):
    """Model that embeds images."""

    model_config = SENT_DEFAULTS

    id: str = Field(description="Name of the model.")
    object: Literal["model"] = Field("model", description="Always `model`.")
    created: int = Field(description="Time of its training, in seconds since 1970.")
    owned_by: str = Field(OWNER, description=f"Always `{OWNER}`.")


class EmbeddingModels(BaseModel):
    """Models that embed images."""

    model_config = SENT_DEFAULTS

    object: Literal["list"] = Field("list", description="Always `list`.")
    data: list[EmbeddingModel] = Field(description="The models, by name.")


BODY = {
    "requestBody": {
        "required": True,
        "description": "Images in `data:` URLs, and options.",
        "content": {
            JSON: {
                "schema": EmbeddingsRequest.model_json_schema(),
                "example": {
                    "input": f"data:image/png;base64,{EXAMPLE_IMAGE}",
                    "model": "mnist-vae",
                },
            }
        },
    }
}


class EmbeddingsEndpoint(BoundedEndpoint):
    """Responds with the embeddings of images, as the operation `encode` computes them."""

    async def _respond(self, scope: Scope, request: IncomingRequest) -> Response:
        services, context = self._services, get_context(scope)
        operations, limits = self._check_key(request, "encode"), services.body_limits
        services.admission.check()  # before the body is read
        body = await requests.read_json(request, limits)
        wanted, images = await requests.parse(body, lambda: _parse(body, limits.max_items))
        model = services.registry.get(wanted.model)
        context.bundle, context.labels = model.digest, ("encode", wanted.model)
        _check_dimensions(wanted, model)
        encoded = await operations.encode(model, images, context.timings, variance=False)

        def make() -> Response:
            headers = {"X-Encoder": str(model.manifest.encoder)}
            return Response(_format(wanted, encoded), headers=headers, media_type=JSON)

        return await render(context.timings, make, encoded.latents.size)


def _parse(body: bytes, max_count: int) -> tuple[EmbeddingsRequest, EncodedImages]:
    """Parse a request and the images in its data: URLs."""
    document = parsing.parse_json(body)
    # Not by pydantic, which would describe a million invalid items.
    given = document.get("input")
    urls = given if isinstance(given, list) else [given]
    check_count(len(urls), max_count)
    if given is not None:
        document["input"] = ""
    wanted = parsing.validate_options(EmbeddingsRequest, document)
    return wanted, EncodedImages(map_items(len(urls), lambda index: _parse_url(urls[index])))


def _parse_url(url: Any) -> bytes:
    if not isinstance(url, str) or url[:5].lower() != "data:":
        raise InvalidImage("the input is no image; send a data: URL that holds base64")
    return parsing.decode_base64(url)


def _check_dimensions(wanted: EmbeddingsRequest, model: ServedModel) -> None:
    if wanted.dimensions not in (None, model.manifest.latent_dim):
        raise InvalidParameter(
            f"dimensions: {wanted.model} gives vectors of {model.manifest.latent_dim} numbers, "
            "which cannot be shortened; omit it"
        )


def _format(wanted: EmbeddingsRequest, encoded: EncodeResult) -> bytes:
    vectors: list[Any] = list(encoded.latents)
    if wanted.encoding_format == "base64":
        vectors = [responses.encode_base64_floats(vector) for vector in vectors]
    count = len(vectors)
    body = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(vectors)
        ],
        "model": wanted.model,
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def build_router(registry: ModelRegistry, guard: Guard) -> APIRouter:
    """Return the list of models, and the description of the embeddings for the document."""
    routes = APIRouter(dependencies=[Depends(guard)], tags=[tags.EMBEDDINGS])

    # `EmbeddingsEndpoint` serves it.
    async def create_embeddings() -> None:
        """Embed images, in the format of OpenAI's API. `/openai/v1/embeddings` is the same.

        A model with the capability `encode` is needed; the default is `photos`. The request holds
        an image in a `data:` URL, or a list of them. The response holds a vector for each image, in
        their order. They are the vectors of the operation `encode`.

        Likely errors:

        - 404: there is no such model, or it does not encode.
        - 413: there are too many images, pixels or bytes.
        - 422: an image is invalid, or `dimensions` are not the model's own.
        """

    for path in PATHS:
        routes.add_api_route(
            path,
            create_embeddings,
            methods=["POST"],
            summary="Embed images",
            response_model=EmbeddingsResponse,
            responses={200: {"headers": describe_headers(ENCODER_HEADER)}},
            openapi_extra=BODY,
            include_in_schema=path == PATHS[0],  # each operation once
        )

    @routes.get(MODELS_PATH, summary="List the models that embed")
    async def list_embedding_models() -> EmbeddingModels:
        """List the models that can `encode`, in the format of OpenAI's API.

        `GET /v1/models` returns the cards of all models instead.
        """
        models = [_describe(each) for each in registry.newest() if _embeds(each)]
        return EmbeddingModels(data=models)

    @routes.get(f"{MODELS_PATH}/{{model}}", summary="Find a model that embeds")
    async def get_embedding_model(model: ModelPath) -> EmbeddingModel:
        """Find a model that can `encode`, in the format of OpenAI's API.

        Likely errors: 404 if there is no such model, or it does not encode.
        """
        found = registry.get(model)
        if not _embeds(found):
            raise ModelNotFound(f"{model} does not embed images")
        return _describe(found)

    return routes


def _embeds(model: ServedModel) -> bool:
    return "encode" in model.manifest.capabilities


def _describe(model: ServedModel) -> EmbeddingModel:
    created = int(model.manifest.provenance.created.timestamp())
    return EmbeddingModel(id=model.manifest.name, created=created)


def build_routes(services: Services) -> list[Route]:
    """Return the routes that embed."""
    return route(EmbeddingsEndpoint(services), PATHS)
