"""Bodies in the OpenAPI document, with examples that work when pasted.

`service.api.responses` writes responses. These types only describe them, and the tests compare
both.
"""

import base64
from collections.abc import Mapping
from importlib import resources
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from bundle.conformal import RATES
from bundle.manifest import InputSpec, Record, TrainingData
from service.api.media_types import IMAGE_TYPES, JSON, MULTIPART, NPY, ZIP
from service.operations import MAX_SEED

EXAMPLE_IMAGE = base64.b64encode(
    resources.files("service.api").joinpath("example.png").read_bytes()
).decode("ascii")
EXAMPLE_LATENT = [0.0, 0.5, -0.5, 1.0, -1.0, 0.25, -0.25, 0.75] * 4
OTHER_LATENT = [-number for number in EXAMPLE_LATENT]

_ENCODER = (
    "SHA-256 of the encoder, in hexadecimal. Vectors of different digests are never comparable."
)
ENCODER_HEADER = {"X-Encoder": _ENCODER}
_RATES = ", ".join(map(str, RATES))


Absent = SkipJsonSchema[None]  # value of a field that is then left out of the response
SENT_DEFAULTS = ConfigDict(json_schema_serialization_defaults_required=True)


class NoOptions(Record):
    """Query of an operation without options."""


class EncodeOptions(Record):
    """Options of `encode`."""

    variance: bool = Field(
        False,
        description="Adds `log_variances` to JSON. Only variational models have them.",
    )
    encoding: Literal["float", "base64"] = Field(
        "float",
        description="Encoding of a vector in JSON: `float` gives a list of numbers, `base64` the "
        "bytes of little-endian float32, which are smaller and faster to read.",
    )


class SizeOptions(Record):
    """Size of the resulting images."""

    size: Literal["model", "original"] = Field(
        "model",
        description="Size of the resulting images: `model` is the model's own, `original` that of "
        "each input.",
    )


class ScoreOptions(Record):
    """Options of `anomaly-score`."""

    false_positive_rate: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of normal images that may be called anomalous. "
        f"Default: the lowest of {_RATES} that the calibration allows.",
    )
    heatmap: bool | Literal["overlay"] = Field(
        False,
        description="`true` adds `heatmap` and `regions` to the results. "
        "With `overlay`, the heatmap is blended over the image, and the regions are outlined.",
    )


class InterpolationOptions(Record):
    """Options of `interpolate`."""

    steps: int = Field(
        8, ge=2, description="Images on the path, both ends included; also in a JSON body."
    )
    method: Literal["linear", "spherical"] = Field(
        "linear",
        description="Shape of the path: a straight line, or an arc around the origin; also in a "
        "JSON body.",
    )


class SampleRequest(Record):
    """Options of `sample`."""

    model_config = ConfigDict(strict=True)

    count: int = Field(1, ge=1, description="Images to draw.")
    seed: int | None = Field(
        None,
        ge=0,
        le=MAX_SEED,
        description="Seed of the random generator; equal seeds give equal images. "
        "Without it, the seed is random.",
    )
    temperature: float = Field(
        1.0,
        ge=0,
        le=10,
        description="Factor of the prior's standard deviations. Less than 1 gives more typical "
        "images, more than 1 more diverse images.",
    )


class OperationResponse(BaseModel):
    """Fields that all JSON responses share."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="Name of the model.")
    version: int = Field(description="Version of the model that responded.")
    warnings: list[str] | Absent = Field(
        None,
        description="Sentences about unsuitable images, such as colour images for a model of grey "
        "images; absent if there are none.",
    )


class EncodeResponse(OperationResponse):
    """Latent vectors of images."""

    latents: list[list[float]] | list[str] = Field(
        description="Vector of each image, in their order: a list of `latent_dim` numbers. With "
        "`encoding=base64` a text, the base64 of little-endian float32."
    )
    log_variances: list[list[float]] | list[str] | Absent = Field(
        None,
        description="Natural logarithm of the variance of each number in `latents`, in the same "
        "encoding; present with `variance=true`.",
    )
    encoder: str = Field(description=_ENCODER)


class ImagesResponse(OperationResponse):
    """Images."""

    images: list[str] = Field(description="PNG of each image, in base64.")


class ReconstructResponse(ImagesResponse):
    """Reconstructed images and their errors."""

    errors: list[float] = Field(
        description="Mean squared error of each reconstruction, with intensities in 0..1. "
        "It is computed at the model's size."
    )


class InterpolateResponse(ImagesResponse):
    """Images on a path, and their latent vectors."""

    latents: list[list[float]] = Field(
        description="Latent vector of each image: `latent_dim` numbers."
    )


class SampleResponse(InterpolateResponse):
    """Drawn images, their latent vectors and the seed."""

    seed: int = Field(
        description="Seed that was used. With it, the same request gives the same images."
    )


class AnomalousRegion(BaseModel):
    """Box of an anomaly, and the largest error in it."""

    model_config = ConfigDict(extra="forbid")

    x: int = Field(description="Left edge, in pixels of the input from its left edge.")
    y: int = Field(description="Top edge, in pixels of the input from its top edge.")
    width: int = Field(description="Width in pixels.")
    height: int = Field(description="Height in pixels.")
    score: float = Field(description="Largest anomaly score of a pixel in the box.")


class Score(BaseModel):
    """Verdict on one image."""

    model_config = ConfigDict(extra="forbid")

    score: float = Field(
        description="Anomaly score; higher is more anomalous. Its scale depends on the model."
    )
    p_value: float = Field(
        description="Share of normal images that score at least as high, in 0..1. "
        "The minimum is 1 / (calibration images + 1)."
    )
    threshold: float | None = Field(
        description="The lowest anomalous score; null if the calibration does not allow the rate."
    )
    is_anomaly: bool | None = Field(
        description="True if the image is anomalous at the false positive rate; null if there is "
        "no threshold."
    )
    reason: str | Absent = Field(
        None, description="Reason for no verdict; absent if there is a verdict."
    )
    heatmap: str | Absent = Field(
        None, description="PNG in base64, of the input's size; with `heatmap=true` or `overlay`."
    )
    regions: list[AnomalousRegion] | Absent = Field(
        None,
        description="Boxes of the strongest regions, at most 16, in pixels of the input; with "
        "`heatmap=true` or `overlay`.",
    )


class ScoreResponse(OperationResponse):
    """Verdicts on images."""

    results: list[Score] = Field(description="Verdict on each image, in their order.")
    false_positive_rate: float = Field(
        description=f"As requested, else the lowest of {_RATES} that the calibration allows."
    )
    method: str = Field(description="Name of the anomaly score.")


class ImageClass(BaseModel):
    """Class of one image."""

    model_config = ConfigDict(extra="forbid")

    label: str = Field(description="Name of the likeliest class.")
    probability: float = Field(description="Probability of this class, in 0..1.")
    probabilities: dict[str, float] = Field(
        description="Probability of each class by its name; their sum is 1."
    )


class ClassifyResponse(OperationResponse):
    """Classes of images."""

    results: list[ImageClass] = Field(description="Class of each image, in their order.")


class CalibrationSummary(BaseModel):
    """Calibration of an anomaly score."""

    method: str = Field(description="Name of the anomaly score.")
    images: int = Field(description="Normal images that the score was calibrated on.")
    quantiles: dict[str, float] = Field(
        description="Quantiles of the scores of these images, by level in 0..1."
    )


class CalibrationScores(BaseModel):
    """Anomaly scores of the normal images that a model was calibrated on."""

    model: str = Field(description="Name of the model.")
    version: int = Field(description="Version of the model.")
    method: str = Field(description="Name of the score.")
    scores: list[float] = Field(description="Ascending; one for each image.")


class ModelCard(BaseModel):
    """Card of a model."""

    name: str = Field(description="Name of the model, as in paths.")
    version: int = Field(description="Version that this card describes.")
    versions: list[int] = Field(description="All versions of the model that can serve, ascending.")
    description: str = Field(description="Purpose of the model.")
    architecture: str = Field(description="Network of the model.")
    capabilities: list[str] = Field(description="Operations that the model can do.")
    input: InputSpec = Field(
        description="Images that the model takes. Images of other sizes are resized."
    )
    latent_dim: int = Field(description="Numbers in a latent vector.")
    metrics: dict[str, float] = Field(
        description="Metrics on the test images, by name, such as `auroc_...` or `mse`."
    )
    calibration: CalibrationSummary | None = Field(
        description="Calibration of the anomaly score; null without `anomaly-score`."
    )
    classes: list[str] = Field(
        description="Names of the classes of `classify`, in the order of its probabilities."
    )
    training_data: TrainingData = Field(description="Images of the training and of the tests.")
    sha256: dict[str, str] = Field(
        description="SHA-256 of each file of the model, in hexadecimal, by the file's name."
    )
    encoder: str | None = Field(
        description="SHA-256 of the encoder, in hexadecimal; null without one."
    )
    weak: str | None = Field(
        description="Reason why a detector's trials were weak; null if they were not."
    )
    execution_provider: str = Field(
        description="ONNX Runtime's provider that runs the model, such as `CUDAExecutionProvider`."
    )


class RequestLimits(BaseModel):
    """Maximum images, and bytes of the body, of a request."""

    max_images: int = Field(
        description="Maximum images or latent vectors of a request or a response."
    )
    max_body_bytes: int = Field(description="Maximum bytes of a request's body.")


class ModelCards(BaseModel):
    """Cards of models, and the limits of requests to them."""

    models: list[ModelCard] = Field(description="Card of each model, by name.")
    limits: RequestLimits = Field(description="Limits of a request.")


HealthStatus = Literal["ok", "ready", "not ready", "draining", "device lost"]
_BY_MODEL = "by the name of the model"


class Health(BaseModel):
    """State of the service."""

    status: HealthStatus = Field(
        description="`ok` while the process lives, `ready` while requests are admitted. "
        "`not ready`: no model can serve. `draining`: the service shuts down. `device lost`: only "
        "a new process can use the device again."
    )
    models: dict[str, list[int]] | Absent = Field(
        None, description=f"Versions that can serve, {_BY_MODEL}. Only in `/readyz`."
    )
    open: dict[str, list[int]] | Absent = Field(
        None,
        description=f"Versions whose graphs are open, tested and warm, {_BY_MODEL}. The others "
        "are opened when they are first used. Only in `/readyz`.",
    )
    failed: dict[str, str] | Absent = Field(
        None,
        description="Reasons why versions cannot serve, by `NAME/VERSION`. Only in `/readyz`.",
    )
    workers: int | Absent = Field(
        None, description="Workers that are ready; absent if there is one process."
    )


class RepositoryEntry(BaseModel):
    """Version of a model in the repository."""

    name: str = Field(description="Name of the model.")
    version: str = Field(description="Version of the model.")
    state: Literal["READY", "UNAVAILABLE"] = Field(
        description="`READY` if the version can serve, else `UNAVAILABLE`."
    )
    reason: str = Field(description="Reason why it failed to load; empty if it can serve.")


class OpenInferenceError(BaseModel):
    """Error of the Open Inference Protocol."""

    error: str = Field(description="Sentence that names the failure, the value and the fix.")


def describe_v2_errors(descriptions: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Return the error responses of a route of the Open Inference Protocol in OpenAPI."""
    return {
        status: {"model": OpenInferenceError, "description": description}
        for status, description in descriptions.items()
    }


class LoadedVersions(BaseModel):
    """Versions of a model that are loaded."""

    name: str = Field(description="Name of the model.")
    versions: list[int] = Field(description="Versions that can serve now, ascending.")


_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
EXAMPLES_RESPONSE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The images, in a zip.", "content": {ZIP: _BINARY}}
}


def _describe_text(description: str, **keywords: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **keywords}


def _describe_object(
    description: str, properties: dict[str, Any], *optional: str
) -> dict[str, Any]:
    """Return the schema of an object in which all but the `optional` properties are required."""
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


_DETAIL = "Sentence that names the failure, the value and the fix. It may change; do not parse it."
_CODE = "Stable name of the error."
_PROBLEM_ITEM = _describe_object(
    "Error of one item.",
    {
        "index": {
            "type": "integer",
            "minimum": 0,
            "description": "Position of the invalid image or latent vector in the request.",
        },
        "code": _describe_text(_CODE),
        "detail": _describe_text(_DETAIL),
    },
)
PROBLEM: dict[str, Any] = _describe_object(
    "Error by RFC 9457.",
    {
        "type": _describe_text("`about:blank`: `code` names the error instead."),
        "title": _describe_text("Name of the HTTP status."),
        "status": {"type": "integer", "description": "HTTP status."},
        "detail": _describe_text(_DETAIL),
        "code": _describe_text(_CODE),
        "request_id": _describe_text("ID of the request, as in `X-Request-ID` and in the log."),
        "errors": {
            "type": "array",
            "description": "Error of each invalid image or latent vector; absent for other errors.",
            "items": _PROBLEM_ITEM,
        },
    },
    "errors",
)
OPENAI_ERROR: dict[str, Any] = _describe_object(
    "Error in the format of OpenAI's API.",
    {
        "error": _describe_object(
            "The error.",
            {
                "message": _describe_text(_DETAIL),
                "type": _describe_text(
                    "Class of the error.",
                    enum=["invalid_request_error", "rate_limit_error", "server_error"],
                ),
                "param": {"type": "null", "description": "Always null."},
                "code": _describe_text(_CODE),
            },
        )
    },
)
_STRINGS = {
    "type": "array",
    "description": "Encoded image (PNG, JPEG, WebP, BMP, GIF or TIFF), in base64; each of any "
    "size.",
    "items": {"type": "string"},
    "minItems": 1,
}
_VECTORS = {
    "type": "array",
    "description": "Latent vectors, each of `latent_dim` finite numbers.",
    "items": {"type": "array", "items": {"type": "number"}},
    "minItems": 1,
}


def _describe_json(
    properties: dict[str, Any], example: dict[str, Any], *required: str
) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
    return {JSON: {"schema": schema, "example": example}}


_PARTS = {
    "type": "array",
    "description": "Files, each an encoded image of any size.",
    "items": {"type": "string", "format": "binary"},
    "minItems": 1,
}


def _describe_parts(parts: dict[str, Any]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"images": parts},
        "required": ["images"],
        "additionalProperties": False,
    }
    return {MULTIPART: {"schema": schema}}


_IMAGES = {
    **_describe_json({"images": _STRINGS}, {"images": [EXAMPLE_IMAGE]}, "images"),
    **_describe_parts(_PARTS),
    **dict.fromkeys(IMAGE_TYPES, _BINARY),
    NPY: _BINARY,
}

_EXAMPLES = """Images, in one of these media types:

- an encoded image of any size: PNG, JPEG, WebP, BMP, GIF or TIFF;
- `multipart/form-data`, with encoded images in parts named `images`;
- `application/json`, with encoded images in base64;
- `application/x-npy`, with uint8 (n, height, width[, channels]) at the model's size.

Examples for a shell, with the address of the service and any image:

    curl ADDRESS/PATH -H 'Content-Type: image/png' --data-binary @image.png
    curl ADDRESS/PATH -F images=@image.png -F images=@other.jpg
    curl ADDRESS/PATH -H 'Content-Type: application/x-npy' --data-binary @images.npy

`numpy.save` wrote `images.npy`."""

IMAGES_BODY = {"requestBody": {"required": True, "description": _EXAMPLES, "content": _IMAGES}}
LATENTS_BODY = {
    "requestBody": {
        "required": True,
        "description": "Latent vectors, in JSON or as npy: float32 (n, latent_dim).",
        "content": {
            **_describe_json({"latents": _VECTORS}, {"latents": [EXAMPLE_LATENT]}, "latents"),
            NPY: _BINARY,
        },
    }
}
SAMPLE_BODY = {
    "requestBody": {
        "description": "Options. Without a body, each has its default.",
        "content": _describe_json(
            SampleRequest.model_json_schema()["properties"],
            {"count": 2, "seed": 7, "temperature": 1.0},
        ),
    }
}
_PAIR = {"minItems": 2, "maxItems": 2}
_INTERPOLATE_PROPERTIES = {
    "latents": _VECTORS | _PAIR,
    "images": _STRINGS | _PAIR,
    **InterpolationOptions.model_json_schema()["properties"],
}
_INTERPOLATE_EXAMPLE = {"latents": [EXAMPLE_LATENT, OTHER_LATENT], "steps": 3, "method": "linear"}
_INTERPOLATE = _describe_json(_INTERPOLATE_PROPERTIES, _INTERPOLATE_EXAMPLE)
_INTERPOLATE[JSON]["schema"]["oneOf"] = [{"required": ["latents"]}, {"required": ["images"]}]
_PAIR_EXAMPLES = """Two images or two latent vectors, in one of these media types:

- `application/json`, with latent vectors or encoded images in base64, and options;
- `multipart/form-data`, with two encoded images in parts named `images`;
- `application/x-npy`, with two images at the model's size, uint8 (2, height, width[, channels]), or
  two latent vectors, float32 (2, latent_dim).

Examples for a shell, with the address of the service and any two images:

    curl ADDRESS/PATH -F images=@image.png -F images=@other.jpg
    curl ADDRESS/PATH -H 'Content-Type: application/x-npy' --data-binary @images.npy

`numpy.save` wrote `images.npy`."""
INTERPOLATE_BODY = {
    "requestBody": {
        "required": True,
        "description": _PAIR_EXAMPLES,
        "content": {**_INTERPOLATE, **_describe_parts(_PARTS | _PAIR), NPY: _BINARY},
    }
}


def describe_headers(headers: Mapping[str, str]) -> dict[str, Any]:
    """Return headers of a response in OpenAPI, from their names and descriptions."""
    return {
        name: {"description": description, "schema": {"type": "string"}}
        for name, description in headers.items()
    }


def describe_responses(
    model: type[BaseModel], *others: str, headers: Mapping[str, str] | None = None
) -> dict[int | str, dict[str, Any]]:
    """Return the responses of an operation in OpenAPI: JSON, and `others` as binary."""
    content = dict.fromkeys(others, _BINARY)
    return {200: {"model": model, "content": content, "headers": describe_headers(headers or {})}}
