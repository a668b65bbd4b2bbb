"""Bundles for the tests, whose graphs are made by hand: no torch, no training.

The code is the image's first values on the 0..1 scale. The decoder puts them back and leaves the
rest black. The classifier takes the first three for logits. A detector has no decoder: its scorer
compares each pixel with the mean of its surroundings, a feature map of its encoder.
"""

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bundle.latents import GaussianMixture
from bundle.manifest import (
    GRAPHS_OF,
    MANIFEST,
    Capability,
    GraphName,
    InputSpec,
    ModelManifest,
    compute_sha256,
)
from service.errors import DeviceLost
from service.inference.engine import Engine, OnnxEngine
from service.registry.loaded_model import LoadedModel
from service.registry.loader import Loader
from service.registry.open_models import ALL_MODELS, OpenModels
from service.registry.registry import ModelRegistry
from service.registry.repository import BundleLocation, ModelRepository, Repository
from service.registry.shared_sessions import SharedSessions
from service.registry.updates import Updates

SPEC = InputSpec(height=4, width=6, channels=1)
LATENT_DIM = 8
DETECTOR_SPEC = InputSpec(height=16, width=24, channels=1)
STRIDE = 8  # of a detector's feature map
CLASSES = ("black", "grey", "white")
FILES: dict[GraphName, str] = {
    "encoder": "encoder.onnx",
    "decoder": "decoder.onnx",
    "scorer": "scorer.onnx",
    "classifier": "classifier.onnx",
}
ALL: tuple[Capability, ...] = tuple(GRAPHS_OF)


def write_bundle(
    models: Path,
    name: str = "tiny",
    version: int = 1,
    spec: InputSpec = SPEC,
    latent_dim: int = LATENT_DIM,
    variational: bool = False,
    mixture: bool = False,
    capabilities: tuple[str, ...] | None = None,
    calibration_size: int = 99,
    graphs: tuple[GraphName, ...] = tuple(FILES),
    **changes: Any,
) -> Path:
    """Write a bundle of some graphs that works; `changes` replace entries of its manifest.

    Without `capabilities` it has all that the graphs allow. A prior comes with a decoder, a
    calibration with a scorer, and classes with a classifier.
    """
    directory = models / name / str(version)
    directory.mkdir(parents=True)
    size = spec.height * spec.width * spec.channels
    parts = {
        "encoder": lambda: _encoder(spec, size, latent_dim, variational),
        "decoder": lambda: _decoder(spec, size, latent_dim),
        "scorer": lambda: _scorer(spec),
        "classifier": lambda: _classifier(latent_dim),
    }
    for graph in graphs:
        _save(directory / FILES[graph], *parts[graph]())
    _write_golden(directory, graphs, spec, 3)
    prior: dict[str, Any] | None = {"kind": "standard_normal"} if "decoder" in graphs else None
    if mixture:
        prior = {"kind": "gaussian_mixture", "file": "prior.npz"}
        eye = np.eye(latent_dim, dtype=np.float32)
        means = np.stack([np.full(latent_dim, mean, np.float32) for mean in (0.2, 0.8)])
        GaussianMixture(np.array([0.5, 0.5]), means, np.stack([0.01 * eye] * 2)).save(
            directory / "prior.npz"
        )
    allowed = tuple(each for each in ALL if GRAPHS_OF[each] <= {*graphs})
    entries = {
        "version": version,
        "architecture": "the first values",
        "capabilities": allowed if capabilities is None else capabilities,
        "input": spec,
        "latent_dim": latent_dim,
        "prior": prior,
        "calibration": _calibration(calibration_size) if "scorer" in graphs else None,
        "classes": CLASSES if "classifier" in graphs else (),
    }
    _write_manifest(directory, graphs, entries | changes)
    return directory


def write_detector(
    models: Path,
    name: str = "detector",
    stride_taken: int = STRIDE,
    calibration_size: int = 99,
    **changes: Any,
) -> Path:
    """Write a detector without a decoder, that takes 2 images at a time.

    Its scorer takes feature maps of `stride_taken`, which its encoder gives if that is STRIDE.
    """
    directory = models / name / "1"
    directory.mkdir(parents=True)
    spec = DETECTOR_SPEC
    graphs: tuple[GraphName, ...] = ("encoder", "scorer")
    _save(directory / FILES["encoder"], *_backbone(spec))
    _save(directory / FILES["scorer"], *_feature_scorer(spec, f"features_{stride_taken}"))
    if stride_taken == STRIDE:
        _write_golden(directory, graphs, spec, 1)
    else:
        np.savez(directory / "golden.npz", images=np.zeros((1, *spec.shape), np.uint8))
    entries = {
        "version": 1,
        "architecture": "the mean of the surroundings",
        "capabilities": ("encode", "anomaly-score"),
        "input": spec,
        "latent_dim": LATENT_DIM,
        "calibration": _calibration(calibration_size),
        "max_batch": 2,
    }
    _write_manifest(directory, graphs, entries | changes)
    return directory


def _write_golden(directory: Path, graphs: tuple[str, ...], spec: InputSpec, count: int) -> None:
    """Write the golden vectors of so many images, without feature maps."""
    images = np.random.default_rng(0).integers(0, 256, (count, *spec.shape), dtype=np.uint8)
    known: dict[str, Any] = {"images": images}
    for graph in (graph for graph in FILES if graph in graphs):
        path = directory / FILES[graph]
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        feeds = {given.name: known[given.name] for given in session.get_inputs()}
        names = [given.name for given in session.get_outputs()]
        known |= zip(names, session.run(None, feeds), strict=True)
    golden = {name: tensor for name, tensor in known.items() if not name.startswith("features_")}
    np.savez(directory / "golden.npz", **golden)


def _calibration(size: int) -> dict[str, Any]:
    return {
        "method": "mean squared error of the reconstruction",
        "scores": [float(np.float32(rank / 1000)) for rank in range(1, size + 1)],
        "error_map": {"low": 0.01, "high": 0.2},
    }


def _write_manifest(
    directory: Path, graphs: tuple[GraphName, ...], entries: dict[str, Any]
) -> None:
    values: dict[str, Any] = {
        "name": directory.parent.name,
        "description": "A model made by hand",
        "graphs": {graph: FILES[graph] for graph in graphs},
        "golden": "golden.npz",
        "metrics": {"mse": 0.25},
        "training_data": {
            "name": "none",
            "source": "tests",
            "licence": "none",
            "images": {},
            "sha256": {},
        },
        "provenance": {
            "created": datetime(2026, 1, 1, tzinfo=UTC),
            "recipe": {},
            "libraries": {},
            "parity": {},
        },
        "files": {path.name: compute_sha256(path) for path in sorted(directory.iterdir())},
    }
    manifest = ModelManifest.model_validate(values | entries)
    (directory / MANIFEST).write_text(manifest.model_dump_json())


def rewrite_manifest(directory: Path, **changes: Any) -> None:
    """Change entries of a bundle's manifest, and bring its digests up to date."""
    manifest = ModelManifest.model_validate_json((directory / MANIFEST).read_bytes())
    files = {
        path.name: compute_sha256(path)
        for path in sorted(directory.iterdir())
        if path.name != MANIFEST
    }
    (directory / MANIFEST).write_text(
        manifest.model_copy(update={"files": files, **changes}).model_dump_json()
    )


def _encoder(spec: InputSpec, size: int, latent_dim: int, variational: bool) -> tuple[Any, ...]:
    nodes = [
        *_to_unit("images", "unit"),
        helper.make_node("Flatten", ["unit"], ["flat"]),
        helper.make_node("MatMul", ["flat", "first"], ["latents"]),
    ]
    constants = [
        _constant("first", np.eye(size, latent_dim, dtype=np.float32)),
        _constant("full", np.float32(255)),
    ]
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


def _backbone(spec: InputSpec) -> tuple[Any, ...]:
    """An encoder that gives a feature map too: the mean of each square of STRIDE pixels a side."""
    size = spec.height * spec.width * spec.channels
    nodes, inputs, outputs, constants = _encoder(spec, size, LATENT_DIM, variational=False)
    name, side = f"features_{STRIDE}", [STRIDE, STRIDE]
    nodes += [
        helper.make_node("Transpose", ["unit"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], [name], kernel_shape=side, strides=side),
    ]
    shape = (spec.channels, spec.height // STRIDE, spec.width // STRIDE)
    return nodes, inputs, [*outputs, _value(name, TensorProto.FLOAT, *shape)], constants


def _feature_scorer(spec: InputSpec, features: str) -> tuple[Any, ...]:
    """A scorer by the squared difference of each pixel from the feature map: their maximum."""
    stride = int(features.removeprefix("features_"))
    nodes = [
        *_to_unit("images", "unit"),
        helper.make_node("Transpose", ["unit"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Resize", [features, "", "scales"], ["means"], mode="nearest"),
        helper.make_node("Sub", ["planes", "means"], ["difference"]),
        helper.make_node("Mul", ["difference", "difference"], ["squared"]),
        helper.make_node("ReduceMean", ["squared", "channel"], ["error_maps"], keepdims=0),
        helper.make_node("ReduceMax", ["error_maps", "pixels"], ["scores"], keepdims=0),
    ]
    constants = [
        _constant("full", np.float32(255)),
        _constant("scales", np.array([1, 1, stride, stride], dtype=np.float32)),
        _constant("channel", np.array([1], dtype=np.int64)),
        _constant("pixels", np.array([1, 2], dtype=np.int64)),
    ]
    shape = (spec.channels, spec.height // stride, spec.width // stride)
    inputs = [
        _value("images", TensorProto.UINT8, *spec.shape),
        _value(features, TensorProto.FLOAT, *shape),
    ]
    outputs = [
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
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path
    )


class Rig:
    """A registry of a repository, on the CPU, that opens all models at the start."""

    def __init__(
        self,
        repository: Repository,
        engine: Engine | None = None,
        preloaded: Collection[str] = (ALL_MODELS,),
        max_bytes: int = 2**40,
        measure: Callable[[], int] = lambda: 0,
    ) -> None:
        self.registry, self.sessions = (
            ModelRegistry(),
            SharedSessions(engine or OnnxEngine("cpu"), measure),
        )
        self.loads: list[tuple[str, bool]] = []
        self.lost: list[DeviceLost] = []
        self.loader = Loader(repository, self.sessions)
        self.opened = OpenModels(
            self.loader,
            self.registry,
            self.sessions,
            max_bytes,
            preloaded,
            lambda *load: self.loads.append(load),
            self.lost.append,
        )
        self.updates = Updates(repository, self.loader, self.registry, self.opened)


def load_registry(models: Path) -> ModelRegistry:
    """List every version of every model, and open all of them on the CPU."""
    rig = Rig(ModelRepository(models))
    rig.updates.load_all()
    return rig.registry


def open_bundle(repository: Repository, location: BundleLocation) -> LoadedModel:
    """Verify a bundle, and open its graphs on the CPU."""
    loader = Loader(repository, SharedSessions(OnnxEngine("cpu")))
    model = loader.index(location)
    loader.fetch(model)
    return loader.open(model)


def get_loaded(registry: ModelRegistry, name: str) -> LoadedModel:
    """Return the open graphs of a model."""
    loaded = registry.get(name).loaded
    assert loaded is not None
    return loaded
