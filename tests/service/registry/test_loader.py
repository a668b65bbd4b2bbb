from pathlib import Path

import numpy as np
import onnx
import pytest

from bundle.latents import GaussianMixture
from bundle.manifest import GraphName, ModelManifest
from bundle.tensors import TensorName, Tensors
from service.errors import ModelNotReady
from service.inference.engine import OnnxEngine
from service.inference.session import Session
from service.registry.repository import ModelRepository
from tests.bundles import (
    DETECTOR_SPEC,
    LATENT_DIM,
    SPEC,
    Rig,
    get_loaded,
    load_registry,
    rewrite_manifest,
    write_bundle,
    write_detector,
)
from tests.conftest import DATA


def test_a_bundle_with_an_invalid_graph_is_skipped(tmp_path: Path) -> None:
    directory = write_bundle(tmp_path, "bad")
    write_bundle(tmp_path, "good")
    (directory / "decoder.onnx").write_bytes(b"no graph at all")
    rewrite_manifest(directory)
    registry = load_registry(tmp_path)
    assert registry.names() == ["good"]
    assert "decoder.onnx cannot be loaded" in registry.failures()["bad/1"]
    with pytest.raises(ModelNotReady):
        registry.get("bad")


@pytest.mark.parametrize(
    ("tensor", "graph"),
    [("latents", "encoder"), ("reconstructions", "decoder"), ("scores", "scorer")],
)
def test_a_bundle_that_misses_its_golden_vectors_is_skipped(
    tmp_path: Path, tensor: str, graph: str
) -> None:
    directory = write_bundle(tmp_path)
    with np.load(directory / "golden.npz") as arrays:
        golden = dict(arrays)
    golden[tensor] = (golden[tensor] + 5).astype(golden[tensor].dtype)
    np.savez(directory / "golden.npz", **golden)
    rewrite_manifest(directory)
    failure = load_registry(tmp_path).failures()["tiny/1"]
    assert (
        f"the {graph} gives wrong {tensor} for its golden vectors on CPUExecutionProvider"
        in failure
    )


def test_a_bundle_with_missing_or_invalid_golden_vectors_is_skipped(tmp_path: Path) -> None:
    few, none = write_bundle(tmp_path, "few"), write_bundle(tmp_path, "none")
    np.savez(few / "golden.npz", images=np.zeros((1, 4, 6, 1), np.uint8))
    (none / "golden.npz").write_bytes(b"no archive")
    for directory in (few, none):
        rewrite_manifest(directory)
    failures = load_registry(tmp_path).failures()
    assert "lack latents of the encoder" in failures["few/1"]
    assert "holds no golden vectors" in failures["none/1"]


def test_a_bundle_with_an_invalid_prior_is_skipped(tmp_path: Path) -> None:
    directory = write_bundle(tmp_path, mixture=True)
    (directory / "prior.npz").write_bytes(b"no archive")
    rewrite_manifest(directory)
    assert "prior.npz is not a Gaussian mixture" in load_registry(tmp_path).failures()["tiny/1"]


def test_only_requested_outputs_are_computed(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    model = get_loaded(load_registry(tmp_path), "tiny")
    images = np.zeros((5, 4, 6, 1), np.uint8)
    found = model.chain.run(["encoder", "decoder", "scorer"], {"images": images}, ["scores"])
    assert list(found) == ["scores"]
    assert found["scores"].shape == (5,)


def test_a_bundle_that_contradicts_its_manifest_is_skipped(tmp_path: Path) -> None:
    rewrite_manifest(write_bundle(tmp_path, "size"), input=SPEC.model_copy(update={"width": 5}))
    rewrite_manifest(write_bundle(tmp_path, "length"), latent_dim=7)
    rewrite_manifest(
        write_bundle(tmp_path, "graphs"),
        graphs={"encoder": "decoder.onnx"},
        capabilities=("encode",),
    )
    prior = write_bundle(tmp_path, "prior", mixture=True)
    GaussianMixture(np.ones(1), np.zeros((1, 3), np.float32), np.zeros((1, 3, 3), np.float32)).save(
        prior / "prior.npz"
    )
    rewrite_manifest(prior)
    cut = write_bundle(tmp_path, "cut", mixture=True)
    for name in ("golden.npz", "prior.npz"):
        (cut / name).write_bytes((cut / name).read_bytes()[:-30])
    rewrite_manifest(cut)
    failures = load_registry(tmp_path).failures()
    assert "holds images of shape (4, 6, 1); the manifest requires (4, 5, 1)" in failures["size/1"]
    assert "holds latents of shape (8,); the manifest requires (7,)" in failures["length/1"]
    assert (
        "the encoder has the inputs latents and outputs reconstructions, intensities"
        in failures["graphs/1"]
    )
    assert "prior.npz has 3 dimensions, not 8" in failures["prior/1"]
    assert "golden.npz holds no golden vectors" in failures["cut/1"]


def test_an_encoder_alone_is_a_model(tmp_path: Path) -> None:
    write_bundle(tmp_path, "embedder", graphs=("encoder",))
    registry = load_registry(tmp_path)
    model = get_loaded(registry, "embedder")
    assert model.manifest.capabilities == ("encode",)
    assert (model.prior, registry.get("embedder").scoring) == (None, None)
    images = np.zeros((2, *SPEC.shape), np.uint8)
    found = model.chain.run(model.graphs["encode"], {"images": images}, ["latents"])
    assert found["latents"].shape == (2, LATENT_DIM)


def test_a_scorer_may_take_feature_maps_of_few_images_at_a_time(tmp_path: Path) -> None:
    directory = write_detector(tmp_path)
    with np.load(directory / "golden.npz") as golden:
        assert set(golden.files) == {"images", "latents", "scores", "error_maps"}
        assert len(golden["images"]) == 1
    model = get_loaded(load_registry(tmp_path), "detector")
    assert model.graphs["anomaly-score"] == ("encoder", "scorer")
    images = np.random.default_rng(0).integers(0, 256, (5, *DETECTOR_SPEC.shape), dtype=np.uint8)
    outputs: list[TensorName] = ["scores", "error_maps"]
    together = model.chain.run(model.graphs["anomaly-score"], {"images": images}, outputs)
    for index in range(5):
        one: Tensors = {"images": images[index : index + 1]}
        alone = model.chain.run(model.graphs["anomaly-score"], one, outputs)
        for name in outputs:
            np.testing.assert_allclose(together[name][index], alone[name][0], atol=1e-6)


def test_a_scorer_whose_features_no_graph_gives_is_skipped(tmp_path: Path) -> None:
    write_detector(tmp_path, stride_taken=4)
    failure = load_registry(tmp_path).failures()["detector/1"]
    assert failure == "anomaly-score needs features_4, which no graph gives"


def test_a_scorer_without_errors_cannot_reconstruct(tmp_path: Path) -> None:
    directory = write_bundle(tmp_path, graphs=("encoder", "decoder", "scorer"))
    scorer = onnx.load(directory / "scorer.onnx")
    kept = [output for output in scorer.graph.output if output.name != "errors"]
    del scorer.graph.output[:]
    scorer.graph.output.extend(kept)
    onnx.save(scorer, directory / "scorer.onnx")
    rewrite_manifest(directory)
    assert (
        load_registry(tmp_path).failures()["tiny/1"]
        == "reconstruct needs errors, which no graph gives"
    )


def test_a_detector_of_earlier_versions_is_read_and_scores(tmp_path: Path) -> None:
    before = ModelManifest.model_validate_json((DATA / "manifests" / "cookies-1.json").read_bytes())
    entries = {
        name: getattr(before, name)
        for name in ("calibration", "selection", "metrics", "provenance")
    }
    graphs: tuple[GraphName, ...] = ("encoder", "decoder", "scorer")
    write_bundle(tmp_path, "before", graphs=graphs, capabilities=before.capabilities, **entries)
    registry = load_registry(tmp_path)
    model = get_loaded(registry, "before")
    assert model.graphs["anomaly-score"] == graphs
    found = model.chain.run(graphs, {"images": np.zeros((2, *SPEC.shape), np.uint8)}, ["scores"])
    assert found["scores"].shape == (2,)
    assert registry.get("before").scoring is not None


def test_a_graph_with_an_unsupported_type_is_skipped(tmp_path: Path) -> None:
    write_bundle(tmp_path, "good")
    directory = write_bundle(tmp_path, "doubles")
    encoder = onnx.load(directory / "encoder.onnx")
    name = encoder.graph.output[0].name
    doubles = onnx.helper.make_tensor_value_info(f"{name}", onnx.TensorProto.DOUBLE, None)
    cast = onnx.helper.make_node("Cast", ["inner"], [name], to=onnx.TensorProto.DOUBLE)
    for node in encoder.graph.node:
        node.output[:] = ["inner" if each == name else each for each in node.output]
        node.input[:] = ["inner" if each == name else each for each in node.input]
    encoder.graph.node.append(cast)
    encoder.graph.output[0].CopyFrom(doubles)
    onnx.save(encoder, directory / "encoder.onnx")
    rewrite_manifest(directory)
    registry = load_registry(tmp_path)
    assert registry.names() == ["good"]
    failure = registry.failures()["doubles/1"]
    assert f"encoder.onnx: {name} is a tensor(double); supported are tensor(float)" in failure


def test_an_unforeseen_fault_concerns_one_bundle(tmp_path: Path) -> None:
    class FailingEngine(OnnxEngine):
        def open(self, path: Path) -> Session:
            if "bad" in str(path):
                raise KeyError("tensor(double)")
            return super().open(path)

    for name in ("bad", "good"):
        write_bundle(tmp_path, name)
    rig = Rig(ModelRepository(tmp_path), FailingEngine("cpu"))
    rig.updates.load_all()
    assert rig.registry.names() == ["good"]
    assert rig.registry.failures() == {"bad/1": "KeyError: 'tensor(double)'"}


def test_data_outside_of_a_graph_are_not_read(tmp_path: Path) -> None:
    directory = write_bundle(tmp_path)
    graph = onnx.load(directory / "encoder.onnx")
    onnx.save(
        graph,
        directory / "encoder.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    assert (directory / "weights.bin").is_file()
    rewrite_manifest(directory)
    failure = load_registry(tmp_path).failures()["tiny/1"]
    assert "encoder.onnx cannot be loaded" in failure
    assert str(tmp_path) not in failure
