"""The scorer graph computes the same in ONNX Runtime and in torch."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from scipy import ndimage

from bundle.manifest import GraphName
from tests.training.detector.fakes import SIDE, FakeEncoder, anomalous_images, encode, normal_images
from training.detector import fitters
from training.detector.components import COMPONENT_NAMES, ComponentName
from training.detector.scorer import SCORER_OUTPUTS, DetectorScorer, Scale
from training.detector.whitening import LatentDistance
from training.export import onnx_export, parity
from training.export.graph_modules import Graph
from training.export.graph_runner import Graphs

# Operators that CUDA has kernels for, by ONNX Runtime's table (docs/OperatorKernels.md).
ON_CUDA = (
    "Add AveragePool Cast Clip Concat Conv Div Expand Gather Gemm Greater Identity Less Log MatMul"
    " Max Min Mul Pow Reciprocal ReduceMax ReduceMean ReduceMin ReduceSum Reshape Resize Shape"
    " Slice Softplus Split Sqrt Squeeze Sub TopK Transpose Unsqueeze Where"
)


def scorer(*names: ComponentName, mapped: ComponentName = "pca-peak") -> DetectorScorer:
    """A scorer fitted to a few images, with scales that differ."""
    encoded = encode(normal_images(20))
    fitted = {name: fitters.fit(name, encoded, 300, seed=0) for name in {*names, mapped}}
    scales = {
        name: Scale((0.5 * rank, 2.0 + rank), (0.1, 0.5 + rank))
        for rank, name in enumerate(COMPONENT_NAMES)
    }
    score = {name: fitted[name] for name in names}
    return DetectorScorer(
        score, (mapped, fitted[mapped]), scales, LatentDistance(encoded.latents, 20), (SIDE, SIDE)
    ).eval()


def tensors(made: DetectorScorer, images: np.ndarray) -> list[torch.Tensor]:
    (batch,) = encode(images).batches()
    return [batch[name] for name in made.inputs]


def encoder_graph(images: np.ndarray) -> Graph:
    encoder = FakeEncoder().module
    return Graph(encoder, {"images": torch.from_numpy(images[:2])}, encoder.outputs)


@pytest.fixture(scope="module")
def exported_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "encoder.onnx"
    onnx_export.write(encoder_graph(normal_images(2)), path)
    return path


@pytest.mark.parametrize("name", COMPONENT_NAMES)
def test_the_exported_scorer_agrees_with_torch_by_operators_that_run_on_cuda(
    name: ComponentName, exported_encoder: Path, tmp_path: Path
) -> None:
    made = scorer(name, mapped="gaussians" if name == "nearest-images" else name)
    images = anomalous_images(8)[0]
    example = dict(zip(made.inputs, tensors(made, images[:2]), strict=True))
    graphs: dict[GraphName, Graph] = {
        "encoder": encoder_graph(images),
        "scorer": Graph(made, example, SCORER_OUTPUTS),
    }
    shutil.copy(exported_encoder, tmp_path)
    onnx_export.write(graphs["scorer"], tmp_path / "scorer.onnx")
    assert {node.op_type for node in onnx.load(tmp_path / "scorer.onnx").graph.node} <= {
        *ON_CUDA.split()
    }
    exported = Graphs(tmp_path, {each: f"{each}.onnx" for each in graphs})
    assert exported.scoring == ("encoder", "scorer")
    tolerances = {"scores": 1e-4, "error_maps": 1e-4}
    assert parity.measure(graphs, exported, images, tolerances, len(images)).keys() >= {
        *SCORER_OUTPUTS
    }


@torch.no_grad()
def test_a_score_is_the_mean_of_its_standardised_components() -> None:
    made, (images, _) = scorer("gaussians", "neighbours"), anomalous_images(5)
    (batch,) = encode(images).batches()
    expected = [
        (component(batch).scores - made.scales[name].score[0]) / made.scales[name].score[1]
        for name, component in made._components.items()
        if name in made.score
    ]
    scores, _, distances = made(*tensors(made, images))
    torch.testing.assert_close(scores, (expected[0] + expected[1]) / 2)
    torch.testing.assert_close(distances, made.latents(batch["latents"]))


@torch.no_grad()
def test_the_map_is_that_of_one_component_enlarged_and_not_negative() -> None:
    made, (images, _) = scorer("nearest-images", mapped="gaussians"), anomalous_images(3)
    (batch,) = encode(images).batches()
    maps = made._components["gaussians"](batch).maps
    assert maps is not None
    mean, deviation = made.scales["gaussians"].map or (0.0, 1.0)
    enlarged = ndimage.zoom(
        (maps - mean) / deviation, (1, 8, 8), order=1, mode="nearest", grid_mode=True
    )
    np.testing.assert_allclose(
        made(*tensors(made, images))[1], np.logaddexp(0, enlarged), atol=1e-4
    )


def test_a_scorer_takes_the_inputs_of_its_components_and_the_distance() -> None:
    assert scorer("neighbours", mapped="neighbours").inputs == (
        "features_16",
        "features_8",
        "latents",
    )
    assert scorer("nearest-images", mapped="pca-mean").inputs == ("images", "latents")


def test_a_scorer_describes_its_score() -> None:
    suffix = ", in standard deviations of normal images"
    assert scorer("gaussians").describe() == f"gaussians{suffix}"
    assert (
        scorer("gaussians", "neighbours").describe() == f"mean of gaussians and neighbours{suffix}"
    )
