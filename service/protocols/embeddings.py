"""Embeddings as OpenAI's clients ask for them; the input is images in data: URLs.

Source: https://platform.openai.com/docs/api-reference/embeddings.
"""

from typing import Any, Literal

import orjson
from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from bundle.errors import InvalidImage, InvalidParameter
from service.api import parsing, requests, responses
from service.api.context import get_context
from service.api.dependencies import Guard, ModelPath, Services
from service.api.endpoint import BoundedEndpoint, route
from service.api.media_types import JSON
from service.api.operation import render
from service.api.requests import IncomingRequest
from service.api.schemas import EXAMPLE_IMAGE
from service.errors import ModelNotFound
from service.operations import EncodedImages, EncodeResult, check_count, map_items
from service.registry.registry import ModelRegistry
from service.registry.served_model import ServedModel

PATHS = ("/v1/embeddings", "/openai/v1/embeddings")
MODELS_PATH = "/openai/v1/models"
DEFAULT_MODEL = "photos"
OWNER = "autoencoder-service"


class EmbeddingsRequest(BaseModel):
    """Images to embed; `user` is ignored, and `dimensions` are those of the model."""

    model_config = ConfigDict(extra="forbid")

    input: str | list[str]
    model: str = DEFAULT_MODEL
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None


class Embedding(BaseModel):
    """Vector of one image; in base64, little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Images of the request."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(BaseModel):
    """Vectors in the order of the input."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class Model(BaseModel):
    """Model that embeds images; `created` is in seconds since 1970."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = OWNER


class Models(BaseModel):
    """Models that embed images."""

    object: Literal["list"] = "list"
    data: list[Model]


BODY = {
    "requestBody": {
        "required": True,
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
    routes = APIRouter(dependencies=[Depends(guard)], tags=["OpenAI"])

    @routes.get(MODELS_PATH)
    async def models() -> Models:
        """List the models that embed images, as OpenAI's clients ask for them."""
        return Models(data=[_describe(each) for each in registry.newest() if _embeds(each)])

    @routes.get(f"{MODELS_PATH}/{{model}}")
    async def model(model: ModelPath) -> Model:
        """Return a model that embeds images."""
        found = registry.get(model)
        if not _embeds(found):
            raise ModelNotFound(f"{model} does not embed images")
        return _describe(found)

    async def embed() -> None:
        """Embed images, as OpenAI's clients ask for it; `EmbeddingsEndpoint` serves it.

        `usage` counts images. The header `X-Encoder` is as of the operation `encode`.
        """

    for path in PATHS:
        routes.add_api_route(
            path, embed, methods=["POST"], response_model=Embeddings, openapi_extra=BODY
        )
    return routes


def _embeds(model: ServedModel) -> bool:
    return "encode" in model.manifest.capabilities


def _describe(model: ServedModel) -> Model:
    created = int(model.manifest.provenance.created.timestamp())
    return Model(id=model.manifest.name, created=created)


def build_routes(services: Services) -> list[Route]:
    """Return the routes that embed."""
    return route(EmbeddingsEndpoint(services), PATHS)
