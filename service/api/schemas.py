"""Bodies as they stand in the OpenAPI document, each with an example that works when pasted.

Answers are written by `service.api.answers`; these types describe them and are checked against them by the tests.
"""

import base64
from importlib import resources
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.api.bodies import IMAGE_TYPES, JSON, MULTIPART, NPY
from service.api.negotiation import PNG
from service.manifest import InputSpec, Record, TrainingData
from service.operations import MAX_SEED

EXAMPLE_IMAGE = base64.b64encode(resources.files("service.api").joinpath("example.png").read_bytes()).decode("ascii")
EXAMPLE_LATENT = [0.0, 0.5, -0.5, 1.0, -1.0, 0.25, -0.25, 0.75] * 2
OTHER_LATENT = [-number for number in EXAMPLE_LATENT]


class SampleRequest(Record):
    count: int = Field(1, ge=1, description="Images to draw.")
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="The same seed gives the same images.")
    temperature: float = Field(1.0, ge=0, le=10, description="Scales the prior's standard deviations.")


class InterpolationOptions(Record):
    steps: int = Field(8, ge=2, description="Images on the path, both ends included.")
    method: Literal["linear", "spherical"] = "linear"


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: str
    version: int


class EncodeAnswer(Answer):
    latents: list[list[float]] | list[str] = Field(description="With `encoding=base64` little-endian float32.")
    log_variances: list[list[float]] | list[str] | None = Field(None, description="With `variance=true`.")


class ImagesAnswer(Answer):
    images: list[str] = Field(description="PNG, in base64.")


class ReconstructAnswer(ImagesAnswer):
    errors: list[float] = Field(description="Mean squared error of each image on the 0..1 scale.")


class InterpolateAnswer(ImagesAnswer):
    latents: list[list[float]]


class SampleAnswer(InterpolateAnswer):
    seed: int


class RegionBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    x: int
    y: int
    width: int
    height: int
    score: float


class Score(BaseModel):
    model_config = ConfigDict(extra="forbid")

    score: float
    p_value: float
    threshold: float | None = Field(description="null where the calibration is too small for the rate.")
    is_anomaly: bool | None
    heatmap: str | None = Field(None, description="PNG in base64, of the input's size; with `heatmap=true`.")
    regions: list[RegionBody] | None = Field(None, description="In pixels of the input; with `heatmap=true`.")


class ScoreAnswer(Answer):
    results: list[Score]
    false_positive_rate: float
    method: str


class CalibrationCard(BaseModel):
    method: str
    images: int = Field(description="Normal images that the score was calibrated on.")
    quantiles: dict[str, float] = Field(description="Quantiles of their scores.")


class Card(BaseModel):
    name: str
    version: int
    versions: list[int]
    description: str
    architecture: str
    capabilities: list[str]
    input: InputSpec
    latent_dim: int
    metrics: dict[str, float]
    calibration: CalibrationCard | None
    training_data: TrainingData
    sha256: dict[str, str]
    execution_provider: str


class Cards(BaseModel):
    models: list[Card]


class Health(BaseModel):
    status: Literal["ok", "ready", "not ready", "draining"]
    models: dict[str, list[int]] | None = None
    failed: dict[str, str] | None = None


_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_PROBLEM_ITEM = {
    "type": "object",
    "properties": {"index": {"type": "integer"}, "code": {"type": "string"}, "detail": {"type": "string"}},
    "required": ["index", "code", "detail"],
}
PROBLEM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {"type": "array", "items": _PROBLEM_ITEM},
    },
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "additionalProperties": False,
}
_PROBLEM = {"application/problem+json": {"schema": PROBLEM}}
_STRINGS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
_VECTORS = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}, "minItems": 1}


def _json(properties: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    return {JSON: {"schema": {"type": "object", "properties": properties}, "example": example}}


_PARTS = {"type": "array", "items": {"type": "string", "format": "binary"}}
_MULTIPART = {MULTIPART: {"schema": {"type": "object", "properties": {"images": _PARTS}, "required": ["images"]}}}
_IMAGES = {
    **_json({"images": _STRINGS}, {"images": [EXAMPLE_IMAGE]}),
    **_MULTIPART,
    **dict.fromkeys(IMAGE_TYPES, _BINARY),
    NPY: _BINARY,
}

IMAGES_BODY = {"requestBody": {"required": True, "content": _IMAGES}}
LATENTS_BODY = {
    "requestBody": {
        "required": True,
        "content": {**_json({"latents": _VECTORS}, {"latents": [EXAMPLE_LATENT]}), NPY: _BINARY},
    }
}
SAMPLE_BODY = {
    "requestBody": {
        "content": _json(SampleRequest.model_json_schema()["properties"], {"count": 4, "seed": 7, "temperature": 1.0})
    }
}
INTERPOLATE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            **_IMAGES,
            **_json(
                {
                    "latents": _VECTORS,
                    "images": _STRINGS,
                    **InterpolationOptions.model_json_schema()["properties"],
                },
                {"latents": [EXAMPLE_LATENT, OTHER_LATENT], "steps": 8, "method": "linear"},
            ),
        },
    }
}


def gives(model: type[BaseModel], *others: str) -> dict[int | str, dict[str, Any]]:
    """The answers of an operation: JSON, what else can be accepted, and the errors."""
    return {200: {"model": model, "content": dict.fromkeys(others, _BINARY)}, **PROBLEMS}


PROBLEMS: dict[int | str, dict[str, Any]] = {
    422: {"description": "A parameter, image or latent is at fault.", "content": _PROBLEM},
    "default": {"description": "A problem (RFC 9457).", "content": _PROBLEM},
}
IMAGES_TOO = (NPY, PNG)
