"""Metadata and health by the Open Inference Protocol."""

from typing import Any

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel

from service import VERSION
from service.api import schemas
from service.api.dependencies import ModelPath, Services, VersionPath, build_guard
from service.api.errors import NotServed
from service.api.media_types import JSON
from service.operations import Timings
from service.protocols.open_inference import names, operations
from service.protocols.open_inference.tensors import InferBody
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


STATES: dict[int | str, dict[str, Any]] = {503: {"description": "It is not."}}
MODEL_ERRORS = schemas.describe_v2_errors(
    {
        401: "The API key is missing or unknown.",
        404: "There is no such model, version or operation.",
        429: "The API key has sent its requests of a second.",
        503: "The model could not be loaded.",
    }
)


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

    name: str = SERVER_NAME
    version: str = VERSION
    extensions: list[str] = EXTENSIONS


class Live(BaseModel):
    """Liveness."""

    live: bool


class Ready(BaseModel):
    """Readiness of the server, or of a model."""

    name: str | None = None
    ready: bool


class Tensor(BaseModel):
    """A tensor of a model; -1 is any size."""

    name: str
    datatype: str
    shape: list[int]


class OutputTensor(Tensor):
    """A tensor of a response: its data, or `binary_data_size` among its parameters."""

    data: list[float | bool] | None = None
    parameters: dict[str, int] | None = None


class InferResponse(BaseModel):
    """Outputs of an inference."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


INFER_INPUT = {
    "name": "images",
    "shape": [1],
    "datatype": "BYTES",
    "data": [schemas.EXAMPLE_IMAGE],
}
INFER_EXAMPLE = {
    "requestBody": {"content": {JSON: {"example": {"inputs": [INFER_INPUT]}}}},
}


class ModelMetadata(BaseModel):
    """A model, its versions, and its tensors."""

    name: str
    versions: list[str]
    platform: str = PLATFORM
    inputs: list[Tensor]
    outputs: list[Tensor]


def build_router(services: Services) -> APIRouter:
    """Return the routes; the endpoint of inference is described, and served elsewhere."""
    routes = APIRouter(tags=["Open Inference Protocol"])
    guarded = [Depends(build_guard(services.api_keys))]

    @routes.get("/v2")
    async def server() -> ServerMetadata:
        """Return the server and its extensions."""
        return ServerMetadata()

    @routes.get("/v2/health/live", responses=STATES)
    async def live(response: Response) -> Live:
        """Respond with 200 while the process can serve."""
        alive = services.executor.lost is None
        response.status_code = 200 if alive else 503
        return Live(live=alive)

    @routes.get("/v2/health/ready", response_model_exclude_none=True, responses=STATES)
    async def ready(response: Response) -> Ready:
        """Respond with 200 if requests are admitted."""
        is_ready = services.find_status() == "ready"
        response.status_code = 200 if is_ready else 503
        return Ready(ready=is_ready)

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
            inputs=[Tensor(**spec._asdict()) for spec in inputs],
            outputs=[Tensor(**spec._asdict()) for spec in outputs],
        )

    @routes.get("/{model}", responses=MODEL_ERRORS)
    async def metadata(model: ModelPath) -> ModelMetadata:
        """Return the tensors of a model; NAME.OPERATION is a model for each operation."""
        return await describe(model)

    @routes.get("/{model}/versions/{version}", responses=MODEL_ERRORS)
    async def version_metadata(model: ModelPath, version: VersionPath) -> ModelMetadata:
        """Return the tensors of a version of a model."""
        return await describe(model, version)

    def show_ready(name: str, response: Response, version: str | None = None) -> Ready:
        find(name, version)
        is_ready = services.find_status() == "ready"
        response.status_code = 200 if is_ready else 503
        return Ready(name=name, ready=is_ready)

    @routes.get("/{model}/ready", responses=MODEL_ERRORS)
    async def ready(model: ModelPath, response: Response) -> Ready:
        """Respond with 200 if a model is ready."""
        return show_ready(model, response)

    @routes.get("/{model}/versions/{version}/ready", responses=MODEL_ERRORS)
    async def version_ready(model: ModelPath, version: VersionPath, response: Response) -> Ready:
        """Respond with 200 if a version of a model is ready."""
        return show_ready(model, response, version)

    async def infer(model: ModelPath, body: InferBody) -> None:
        """Infer with a model; `InferEndpoint` serves it. Bytes may follow the JSON."""

    async def infer_version(model: ModelPath, version: VersionPath, body: InferBody) -> None:
        """Infer with a version of a model; `InferEndpoint` serves it. Bytes may follow the JSON."""

    for path, described in (("", infer), ("/versions/{version}", infer_version)):
        routes.add_api_route(
            f"/{{model}}{path}/infer",
            described,
            methods=["POST"],
            response_model=InferResponse,
            responses=INFER_ERRORS,
            openapi_extra=INFER_EXAMPLE,
        )
    return routes
