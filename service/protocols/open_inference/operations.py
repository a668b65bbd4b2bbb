"""Operations as models of the Open Inference Protocol: their tensors, and their runs."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from pydantic import BaseModel

from bundle.errors import InvalidParameter
from bundle.manifest import Capability
from bundle.tensors import Array
from service.api import schemas
from service.api.parsing import check_latents, validate_options
from service.operations import EncodedImages, Latents, Operations, Timings
from service.protocols.open_inference.tensors import BYTES, ParsedRequest
from service.registry.served_model import ServedModel

Options = TypeVar("Options", bound=BaseModel)
Outputs = dict[str, Array]


class TensorSpec(NamedTuple):
    """Name, data type and shape of a tensor; -1 is any size."""

    name: str
    datatype: str
    shape: Sequence[int]


@dataclass(frozen=True)
class Inference:
    """A request to a model, and what runs it."""

    model: ServedModel
    operations: Operations
    request: ParsedRequest
    timings: Timings

    def read_options(self, options: type[Options]) -> Options:
        """Return the options among the parameters. Raises InvalidParameter."""
        known = self.request.parameters.keys() & options.model_fields.keys()
        return validate_options(options, {name: self.request.parameters[name] for name in known})

    def read_images(self) -> EncodedImages:
        """Return the input `images`, encoded or as an array. Raises InvalidParameter."""
        self._check_inputs("images")
        return EncodedImages(self.request.inputs["images"])

    def read_latents(self) -> Latents:
        """Return the input `latents`. Raises InvalidParameter, and InvalidItems."""
        self._check_inputs("latents")
        value = self.request.inputs["latents"]
        if isinstance(value, list):
            raise InvalidParameter(f"the input 'latents' is {BYTES}; send FP32")
        return check_latents(value)

    def read_ends(self) -> EncodedImages | Latents:
        """Return the input `latents` or `images`. Raises as the reader of each does."""
        return self.read_latents() if "latents" in self.request.inputs else self.read_images()

    def wants(self, output: str) -> bool:
        """Return True if a request names an output."""
        return self.request.outputs is not None and output in self.request.outputs

    def _check_inputs(self, name: str) -> None:
        if self.request.inputs.keys() != {name}:
            found = ", ".join(sorted(self.request.inputs))[:200] or "none"
            raise InvalidParameter(f"the input is {name!r}, and the request has: {found}")


class ServedOperation(NamedTuple):
    """An operation: its input, if any, its run, and the names of its outputs."""

    input: str | None
    run: Callable[[Inference], Awaitable[Outputs]]
    outputs: Sequence[str]


async def _encode(call: Inference) -> Outputs:
    variance = call.wants("log_variances")
    result = await call.operations.encode(call.model, call.read_images(), call.timings, variance)
    vectors = {"latents": result.latents, "log_variances": result.log_variances}
    return {name: each for name, each in vectors.items() if each is not None}


async def _decode(call: Inference) -> Outputs:
    return {"images": await call.operations.decode(call.model, call.read_latents(), call.timings)}


async def _reconstruct(call: Inference) -> Outputs:
    result = await call.operations.reconstruct(call.model, call.read_images(), call.timings)
    return {"images": result.images, "errors": result.errors}


async def _denoise(call: Inference) -> Outputs:
    result = await call.operations.denoise(call.model, call.read_images(), call.timings)
    return {"images": result.images}


async def _classify(call: Inference) -> Outputs:
    result = await call.operations.classify(call.model, call.read_images(), call.timings)
    return {"probabilities": result.probabilities}


async def _sample(call: Inference) -> Outputs:
    if call.request.inputs:
        raise InvalidParameter("`sample` has no input; send parameters only")
    options = call.read_options(schemas.SampleRequest)
    drawn, _ = await call.operations.sample(
        call.model, options.count, options.seed, options.temperature, call.timings
    )
    return {"images": drawn.images, "latents": drawn.latents}


async def _interpolate(call: Inference) -> Outputs:
    options = call.read_options(schemas.InterpolationOptions)
    drawn = await call.operations.interpolate(
        call.model, call.read_ends(), options.steps, options.method, call.timings
    )
    return {"images": drawn.images, "latents": drawn.latents}


async def _score(call: Inference) -> Outputs:
    options = call.read_options(schemas.ScoreOptions)
    result = await call.operations.score(
        call.model, call.read_images(), call.timings, options.false_positive_rate
    )
    verdicts = result.verdicts
    outputs: Outputs = {
        "scores": np.array([each.score for each in verdicts], np.float32),
        "p_values": np.array([each.p_value for each in verdicts], np.float32),
    }
    if result.reason is None:
        outputs["is_anomaly"] = np.array([each.is_anomaly for each in verdicts], np.bool_)
    elif call.wants("is_anomaly"):
        raise InvalidParameter(f"there is no verdict: {result.reason}")
    return outputs


SERVED: dict[Capability, ServedOperation] = {
    "encode": ServedOperation("images", _encode, ["latents"]),
    "decode": ServedOperation("latents", _decode, ["images"]),
    "reconstruct": ServedOperation("images", _reconstruct, ["images", "errors"]),
    "denoise": ServedOperation("images", _denoise, ["images"]),
    "sample": ServedOperation(None, _sample, ["images", "latents"]),
    "anomaly-score": ServedOperation("images", _score, ["scores", "p_values", "is_anomaly"]),
    "interpolate": ServedOperation("latents", _interpolate, ["images", "latents"]),
    "classify": ServedOperation("images", _classify, ["probabilities"]),
}
DEFAULT: Capability = "encode"


async def describe(
    model: ServedModel, operation: Capability, operations: Operations, timings: Timings
) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Return the inputs and the outputs of an operation of a model.

    Raises as `Operations.has_variances` does.
    """
    served = SERVED[operation]
    outputs = [*served.outputs]
    if operation == DEFAULT and await operations.has_variances(model, timings):
        outputs.append("log_variances")
    specs = _describe_tensors(model)
    inputs = [TensorSpec("images", BYTES, [-1])] if served.input == "images" else []
    if served.input == "latents":
        inputs = [specs["latents"]]
    return inputs, [specs[name] for name in outputs]


def _describe_tensors(model: ServedModel) -> dict[str, TensorSpec]:
    manifest = model.manifest
    vector = [-1, manifest.latent_dim]
    specs = [
        TensorSpec("images", "UINT8", [-1, *manifest.input.shape]),
        TensorSpec("latents", "FP32", vector),
        TensorSpec("log_variances", "FP32", vector),
        TensorSpec("probabilities", "FP32", [-1, len(manifest.classes)]),
        *(TensorSpec(name, "FP32", [-1]) for name in ("errors", "scores", "p_values")),
        TensorSpec("is_anomaly", "BOOL", [-1]),
    ]
    return {spec.name: spec for spec in specs}


async def run(call: Inference, operation: Capability) -> Outputs:
    """Run an operation. Raises InvalidParameter for outputs that it has not, and its errors."""
    if call.request.outputs is not None:
        await _check_outputs(call, operation, call.request.outputs)
    return await SERVED[operation].run(call)


async def _check_outputs(call: Inference, operation: Capability, requested: Sequence[str]) -> None:
    _, specs = await describe(call.model, operation, call.operations, call.timings)
    available = [spec.name for spec in specs]
    if unknown := {*requested} - {*available}:
        raise InvalidParameter(
            f"there is no output {min(unknown)[:50]!r}; request one of: {', '.join(available)}"
        )
