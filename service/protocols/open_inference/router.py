"""Metadata and health by the Open Inference Protocol."""

from typing import Any

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from service import VERSION
from service.api import schemas, tags
from service.api.dependencies import ModelPath, Services, VersionPath, build_guard
from service.api.errors import NotServed
from service.api.media_types import JSON
from service.operations import Timings
from service.protocols.open_inference import names, operations
from service.protocols.open_inference.endpoint import BINARY, HEADER_LENGTH
from service.protocols.open_inference.tensors import InferRequest
from service.registry.served_model import ServedModel

SERVER_NAME = "autoencoder-service"
EXTENSIONS = ["binary_tensor_data", "model_repository"]
PLATFORM = "onnxruntime_onnx"
NOT_SERVED = (
    "/v2/models/{model}/config",
    "/v2/models/{model}/versions/{version}/config",
    "/v2/models/{model}/stats",
    "/v2/models/{model}/versions/{version}/stats",
    "/v2/models/stats",
    "/v2/trace/setting",
    "/v2/models/{model}/trace/setting",
    "/v2/logging",
    "/v2/{kind}sharedmemory/{rest:path}",
)


class Readiness(BaseModel):
    """Readiness of the server, or of a model."""

    name: str | schemas.Absent = Field(
        None, description="Name of the model, if the request names one."
    )
    ready: bool = Field(description="True if requests are admitted.")


MODEL_ERRORS = schemas.describe_v2_errors(
    {
        401: "The API key is missing or unknown.",
        404: "There is no such model, version or operation.",
        429: "The API key has sent its requests of a second.",
        503: "The model could not be loaded.",
    }
)
READY_ERRORS = MODEL_ERRORS | {
    503: {
        "model": Readiness | schemas.OpenInferenceError,
        "description": "Requests are not admitted, or the model could not be loaded.",
    }
}
INFER_ERRORS = MODEL_ERRORS | schemas.describe_v2_errors(
    {
        400: "The body is malformed.",
        403: "The API key lacks the right of the operation.",
        408: "The head took too long.",
        413: "The body, an image or their number is too large.",
        414: "The target is too long.",
        415: "The body has another coding, or an image another format.",
        422: "An input, an output, a parameter or an image is invalid.",
        429: "Too many images or bytes are in flight, or the key sends too many requests.",
        431: "The head is too large.",
        500: "A defect; the log has it.",
        504: "The request did not run before its timeout.",
    }
)


class ServerMetadata(BaseModel):
    """The server, and the extensions of the protocol that it serves."""

    model_config = schemas.SENT_DEFAULTS

    name: str = Field(SERVER_NAME, description="Name of the server.")
    version: str = Field(VERSION, description="Version of the server.")
    extensions: list[str] = Field(
        EXTENSIONS, description="Extensions of the protocol, in the words of Triton."
    )


class Liveness(BaseModel):
    """Liveness of the server."""

    live: bool = Field(description="True if the process can serve.")


class TensorMetadata(BaseModel):
    """Name, data type and shape of a tensor."""

    name: str = Field(description="Name of the tensor.")
    datatype: str = Field(
        description="Type of its elements: `BYTES`, `UINT8`, `FP32` (float32) or `BOOL`."
    )
    shape: list[int] = Field(description="Size of each dimension; -1 is any size.")


class OutputTensor(TensorMetadata):
    """A tensor of a response."""

    data: list[float | bool] | schemas.Absent = Field(
        None, description="Elements in row-major order; absent if they are bytes behind the JSON."
    )
    parameters: dict[str, int] | schemas.Absent = Field(
        None, description="`binary_data_size`: bytes of the tensor behind the JSON, if they are."
    )


class InferResponse(BaseModel):
    """Outputs of an inference."""

    model_name: str = Field(description="Name of the model, as in the path.")
    model_version: str = Field(description="Version of the model that responded.")
    id: str | schemas.Absent = Field(None, description="ID of the request; absent if it had none.")
    outputs: list[OutputTensor] = Field(description="Output tensors.")


INFER_INPUT = {
    "name": "images",
    "shape": [1],
    "datatype": "BYTES",
    "data": [schemas.EXAMPLE_IMAGE],
}
INFER_EXAMPLE = {
    "requestBody": {
        "description": "Tensors and options in JSON. The bytes of binary tensors may follow.",
        "content": {JSON: {"example": {"inputs": [INFER_INPUT]}}},
    },
}
INFER_RESPONSE: dict[str, Any] = {
    "content": {BINARY: {"schema": {"type": "string", "format": "binary"}}},
    "headers": {
        HEADER_LENGTH.title(): {
            "description": "Bytes of the JSON, if the bytes of binary tensors follow it.",
            "schema": {"type": "integer"},
        }
    },
}


class ModelMetadata(BaseModel):
    """A model, its versions, and its tensors."""

    model_config = schemas.SENT_DEFAULTS

    name: str = Field(description="Name of the model, as in the path.")
    versions: list[str] = Field(description="Versions that can serve.")
    platform: str = Field(PLATFORM, description="Framework that runs the model.")
    inputs: list[TensorMetadata] = Field(description="Input tensors.")
    outputs: list[TensorMetadata] = Field(description="Output tensors.")


def build_router(services: Services) -> APIRouter:
    """Return the routes; the endpoint of inference is described, and served elsewhere."""
    routes = APIRouter(tags=[tags.OPEN_INFERENCE])
    guarded = [Depends(build_guard(services.api_keys))]

    @routes.get("/v2", summary="Describe the server")
    async def server_metadata() -> ServerMetadata:
        """Describe the server: its name, its version and its extensions of the protocol."""
        return ServerMetadata()

    @routes.get(
        "/v2/health/live",
        summary="Check that the server lives",
        responses={503: {"model": Liveness, "description": "The device is lost; restart."}},
    )
    async def server_live(response: Response) -> Liveness:
        """Check that the process can serve: 200 if it can, else 503. It needs no API key."""
        alive = services.executor.lost is None
        response.status_code = 200 if alive else 503
        return Liveness(live=alive)

    @routes.get(
        "/v2/health/ready",
        summary="Check that the server is ready",
        response_model_exclude_none=True,
        responses={503: {"model": Readiness, "description": "Requests are not admitted."}},
    )
    async def server_ready(response: Response) -> Readiness:
        """Check that requests are admitted: 200 if they are, else 503. It needs no API key."""
        is_ready = services.find_status() == "ready"
        response.status_code = 200 if is_ready else 503
        return Readiness(ready=is_ready)

    async def not_served() -> None:
        """Respond with 501."""
        raise NotServed("this part of the protocol is not served")

    for path in NOT_SERVED:
        routes.add_api_route(path, not_served, methods=["GET", "POST"], include_in_schema=False)
    routes.include_router(_build_model_routes(services), dependencies=guarded)
    return routes


def _build_model_routes(services: Services) -> APIRouter:
    routes = APIRouter(prefix="/v2/models")

    def find(name: str, version: str | None = None) -> tuple[names.Target, ServedModel]:
        target = names.resolve(services.registry, name)
        return target, names.get(services.registry, target, version)

    async def describe(name: str, version: str | None = None) -> ModelMetadata:
        target, model = find(name, version)
        inputs, outputs = await operations.describe(
            model, target.operation, services.operations, Timings()
        )
        return ModelMetadata(
            name=name,
            versions=[str(version) for version in services.registry.versions(target.model)],
            inputs=[TensorMetadata(**spec._asdict()) for spec in inputs],
            outputs=[TensorMetadata(**spec._asdict()) for spec in outputs],
        )

    # The document gives routes with a version the texts of those without.
    @routes.get("/{model}", summary="Describe a model", responses=MODEL_ERRORS)
    async def model_metadata(model: ModelPath) -> ModelMetadata:
        """Describe a model: its versions, and the names, types and shapes of its tensors.

        Likely errors: 404 if there is no such model, version or operation.
        """
        return await describe(model)

    @routes.get("/{model}/versions/{version}", name="model_metadata", responses=MODEL_ERRORS)
    async def version_metadata(model: ModelPath, version: VersionPath) -> ModelMetadata:
        return await describe(model, version)

    def show_ready(name: str, response: Response, version: str | None = None) -> Readiness:
        find(name, version)
        is_ready = services.find_status() == "ready"
        response.status_code = 200 if is_ready else 503
        return Readiness(name=name, ready=is_ready)

    @routes.get("/{model}/ready", summary="Check that a model is ready", responses=READY_ERRORS)
    async def model_ready(model: ModelPath, response: Response) -> Readiness:
        """Check that a model can serve: 200 if it can, else 503.

        The check does not open the model. Its first use does.

        Likely errors: 404 if there is no such model, version or operation.
        """
        return show_ready(model, response)

    @routes.get("/{model}/versions/{version}/ready", name="model_ready", responses=READY_ERRORS)
    async def version_ready(
        model: ModelPath, version: VersionPath, response: Response
    ) -> Readiness:
        return show_ready(model, response, version)

    # `InferEndpoint` serves both.
    async def model_infer(model: ModelPath, body: InferRequest) -> None:
        """Run an operation of a model on tensors.

        `NAME` encodes, and `NAME.OPERATION` does each other operation of the model, such as
        `cookies.anomaly-score`. The metadata of the model describe its tensors.

        The request holds the input, the parameters of the operation, and the outputs that the
        response shall hold. `images` are `BYTES` (n,), each an encoded image of any size, or
        `UINT8` (n, height, width[, channels]) at the model's size. `latents` are `FP32`
        (n, latent_dim).

        Bytes of tensors may follow the JSON, whose length `Inference-Header-Content-Length` gives.
        The body may be compressed with gzip or deflate.

        Likely errors:

        - 404: there is no such model, version or operation.
        - 413: there are too many images, latent vectors, pixels or bytes.
        - 422: an input, an output, a parameter or an image is invalid.
        """

    async def version_infer(model: ModelPath, version: VersionPath, body: InferRequest) -> None: ...

    for path, described in (("", model_infer), ("/versions/{version}", version_infer)):
        routes.add_api_route(
            f"/{{model}}{path}/infer",
            described,
            methods=["POST"],
            name="model_infer",
            summary="Run a model",
            response_model=InferResponse,
            responses=INFER_ERRORS | {200: INFER_RESPONSE},
            openapi_extra=INFER_EXAMPLE,
        )
    return routes
