from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import DATA
from tests.training.conftest import tiny
from training.architectures import build
from training.data.mnist import load_test
from training.errors import ParityError
from training.evaluation import graph_metrics
from training.export import graph_modules, onnx_export, parity
from training.export.graph_modules import EncoderGraph, Graph
from training.export.graph_runner import Graphs
from training.metrics import reconstruction


def test_an_output_that_is_no_number_is_no_parity(tmp_path: Path) -> None:
    recipe = tiny("mnist-undercomplete")
    model = build(recipe.architecture, recipe.input).eval()
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    images = load_test("mnist", DATA).images
    graph = Graph(EncoderGraph(model), {"images": torch.from_numpy(images[:2])}, ["latents"])
    onnx_export.write(graph, tmp_path / "encoder.onnx")
    with pytest.raises(ParityError, match="latents differs from torch by nan"):
        parity.measure({"encoder": graph}, Graphs(tmp_path, {"encoder": "encoder.onnx"}), images)


def test_parity_is_measured_at_every_batch_size(tmp_path: Path) -> None:
    recipe = tiny("mnist-vae")
    torch.manual_seed(0)
    model = build(recipe.architecture, recipe.input).eval()
    images = load_test("mnist", DATA).images
    scorer = graph_modules.build_scorer(model, images)
    exported = onnx_export.export(
        model, recipe.input, images, tmp_path, likelihood=True, scorer=scorer
    )
    assert set(exported.parity) == {
        "logits",
        "latents",
        "log_variances",
        "reconstructions",
        "intensities",
        "errors",
        "scores",
        "error_maps",
        "latent_distances",
    }
    assert (
        max(value for name, value in exported.parity.items() if name != "reconstructions") <= 1e-5
    )
    graphs = Graphs(tmp_path, exported.files)
    rounded = graphs.chain(["encoder", "decoder"], images=images)["reconstructions"]
    errors = graph_metrics.score(graphs, images).errors
    np.testing.assert_allclose(errors, reconstruction.squared_errors(rounded, images), rtol=0.02)
