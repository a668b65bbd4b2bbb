"""Bundles for the tests, whose graphs are made by hand: no torch, no training.

The code is the image's first values on the 0..1 scale; the decoder puts them back and leaves the rest black, and the
classifier takes the first three for logits.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from service.latents import GaussianMixture
from service.manifest import MANIFEST, InputSpec, ModelManifest, sha256_of

SPEC = InputSpec(height=4, width=6, channels=1)
LATENT_DIM = 8
CLASSES = ("black", "grey", "white")
FILES = {
    "encoder": "encoder.onnx",
    "decoder": "decoder.onnx",
    "scorer": "scorer.onnx",
    "classifier": "classifier.onnx",
}
ALL = ("encode", "decode", "reconstruct", "denoise", "sample", "anomaly-score", "interpolate", "classify")


def write_bundle(
    models: Path,
    name: str = "tiny",
    version: int = 1,
    spec: InputSpec = SPEC,
    latent_dim: int = LATENT_DIM,
    variational: bool = False,
    mixture: bool = False,
    capabilities: tuple[str, ...] = ALL,
    calibration_size: int = 99,
    **changes: Any,
) -> Path:
    """Write a bundle that works; `changes` replace entries of its manifest."""
    directory = models / name / str(version)
    directory.mkdir(parents=True)
    size = spec.height * spec.width * spec.channels
    _save(directory / FILES["encoder"], *_encoder(spec, size, latent_dim, variational))
    _save(directory / FILES["decoder"], *_decoder(spec, size, latent_dim))
    _save(directory / FILES["scorer"], *_scorer(spec))
    _save(directory / FILES["classifier"], *_classifier(latent_dim))
    images = np.random.default_rng(0).integers(0, 256, (3, *spec.shape), dtype=np.uint8)
    golden: dict[str, Any] = {"images": images}
    for file in FILES.values():
        session = onnxruntime.InferenceSession(directory / file, providers=["CPUExecutionProvider"])
        feeds = {given.name: golden[given.name] for given in session.get_inputs()}
        golden |= zip([given.name for given in session.get_outputs()], session.run(None, feeds), strict=True)
    np.savez(directory / "golden.npz", **golden)
    prior: dict[str, Any] = {"kind": "standard_normal"}
    if mixture:
        prior = {"kind": "gaussian_mixture", "file": "prior.npz"}
        eye = np.eye(latent_dim, dtype=np.float32)
        means = np.stack([np.full(latent_dim, mean, np.float32) for mean in (0.2, 0.8)])
        GaussianMixture(np.array([0.5, 0.5]), means, np.stack([0.01 * eye] * 2)).save(directory / "prior.npz")
    values: dict[str, Any] = {
        "name": name,
        "version": version,
        "description": "A model made by hand",
        "architecture": "the first values",
        "capabilities": capabilities,
        "input": spec,
        "latent_dim": latent_dim,
        "graphs": FILES,
        "golden": "golden.npz",
        "prior": prior,
        "calibration": {
            "method": "mean squared error of the reconstruction",
            "scores": [float(np.float32(rank / 1000)) for rank in range(1, calibration_size + 1)],
            "error_map": {"low": 0.01, "high": 0.2},
        },
        "classes": CLASSES,
        "metrics": {"mse": 0.25},
        "training_data": {"name": "none", "source": "tests", "licence": "none", "images": {}, "sha256": {}},
        "provenance": {"created": datetime(2026, 1, 1, tzinfo=UTC), "recipe": {}, "libraries": {}, "parity": {}},
        "files": {path.name: sha256_of(path) for path in sorted(directory.iterdir())},
    }
    manifest = ModelManifest.model_validate(values | changes)
    (directory / MANIFEST).write_text(manifest.model_dump_json())
    return directory


def rewrite_manifest(directory: Path, **changes: Any) -> None:
    """Change entries of a bundle's manifest, and bring its digests up to date."""
    manifest = ModelManifest.model_validate_json((directory / MANIFEST).read_bytes())
    files = {path.name: sha256_of(path) for path in sorted(directory.iterdir()) if path.name != MANIFEST}
    (directory / MANIFEST).write_text(manifest.model_copy(update={"files": files, **changes}).model_dump_json())


def _encoder(spec: InputSpec, size: int, latent_dim: int, variational: bool) -> tuple[Any, ...]:
    nodes = [
        *_to_unit("images", "unit"),
        helper.make_node("Flatten", ["unit"], ["flat"]),
        helper.make_node("MatMul", ["flat", "first"], ["latents"]),
    ]
    constants = [_constant("first", np.eye(size, latent_dim, dtype=np.float32)), _constant("full", np.float32(255))]
    outputs = [_value("latents", TensorProto.FLOAT, latent_dim)]
    if variational:
        nodes.append(helper.make_node("Sub", ["latents", "four"], ["log_variances"]))
        constants.append(_constant("four", np.float32(4)))
        outputs.append(_value("log_variances", TensorProto.FLOAT, latent_dim))
    return nodes, [_value("images", TensorProto.UINT8, *spec.shape)], outputs, constants


def _decoder(spec: InputSpec, size: int, latent_dim: int) -> tuple[Any, ...]:
    nodes = [
        helper.make_node("MatMul", ["latents", "back"], ["flat"]),
        helper.make_node("Clip", ["flat", "zero", "one"], ["clipped"]),
        helper.make_node("Reshape", ["clipped", "shape"], ["intensities"]),
        helper.make_node("Mul", ["intensities", "full"], ["scaled"]),
        helper.make_node("Round", ["scaled"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], ["reconstructions"], to=TensorProto.UINT8),
    ]
    constants = [
        _constant("back", np.eye(latent_dim, size, dtype=np.float32)),
        _constant("zero", np.float32(0)),
        _constant("one", np.float32(1)),
        _constant("full", np.float32(255)),
        _constant("shape", np.array([-1, *spec.shape], dtype=np.int64)),
    ]
    outputs = [
        _value("reconstructions", TensorProto.UINT8, *spec.shape),
        _value("intensities", TensorProto.FLOAT, *spec.shape),
    ]
    return nodes, [_value("latents", TensorProto.FLOAT, latent_dim)], outputs, constants


def _scorer(spec: InputSpec) -> tuple[Any, ...]:
    nodes = [
        *_to_unit("images", "unit"),
        helper.make_node("Sub", ["unit", "intensities"], ["difference"]),
        helper.make_node("Mul", ["difference", "difference"], ["squared"]),
        helper.make_node("ReduceMean", ["squared", "pixels"], ["errors"], keepdims=0),
        helper.make_node("Identity", ["errors"], ["scores"]),
        helper.make_node("ReduceMean", ["squared", "channel"], ["error_maps"], keepdims=0),
    ]
    constants = [
        _constant("full", np.float32(255)),
        _constant("pixels", np.array([1, 2, 3], dtype=np.int64)),
        _constant("channel", np.array([3], dtype=np.int64)),
    ]
    inputs = [
        _value("images", TensorProto.UINT8, *spec.shape),
        _value("intensities", TensorProto.FLOAT, *spec.shape),
    ]
    outputs = [
        _value("errors", TensorProto.FLOAT),
        _value("scores", TensorProto.FLOAT),
        _value("error_maps", TensorProto.FLOAT, spec.height, spec.width),
    ]
    return nodes, inputs, outputs, constants


def _classifier(latent_dim: int) -> tuple[Any, ...]:
    nodes = [
        helper.make_node("MatMul", ["latents", "first"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    constants = [_constant("first", np.eye(latent_dim, len(CLASSES), dtype=np.float32))]
    outputs = [_value("probabilities", TensorProto.FLOAT, len(CLASSES))]
    return nodes, [_value("latents", TensorProto.FLOAT, latent_dim)], outputs, constants


def _to_unit(source: str, target: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", [source], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "full"], [target]),
    ]


def _value(name: str, kind: int, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["batch", *shape])


def _constant(name: str, value: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)


def _save(path: Path, nodes: Any, inputs: Any, outputs: Any, constants: Any) -> None:
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
