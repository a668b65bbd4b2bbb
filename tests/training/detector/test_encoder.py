"""The encoder graph: an embedding, and the feature maps that scorers take."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bundle.tensors import Tensors
from tests.training.detector.fakes import SIDE, FakeEncoder, PoolingBackbone, normal_images
from training.detector import encoder
from training.detector.encoder import BackboneEncoder
from training.detector.image_features import MAX_BATCH_IMAGES, ExportedEncoder
from training.export import onnx_export
from training.export.graph_modules import Graph
from training.export.graph_runner import Graphs


def exported(encoder: Path) -> ExportedEncoder:
    """Open the graph of an encoder in this file."""
    graphs = Graphs(encoder.parent, {"encoder": encoder.name})
    return ExportedEncoder(
        lambda images: graphs.chain(["encoder"], images=images), tuple(graphs.outputs("encoder"))
    )


@torch.no_grad()
def test_the_embedding_is_the_mean_of_the_deepest_map_with_a_length_of_one() -> None:
    images = torch.from_numpy(normal_images(3))
    latents, *features = BackboneEncoder(PoolingBackbone(), 16, (8, 16)).eval()(images)
    expected = PoolingBackbone()(images.permute(0, 3, 1, 2).float(), 16)
    for found, stride in zip(features, (8, 16), strict=True):
        torch.testing.assert_close(found, expected[stride])
    means = expected[16].mean(dim=(2, 3))
    torch.testing.assert_close(latents, means / means.square().sum(dim=1, keepdim=True).sqrt())


def test_an_encoder_names_its_outputs_and_whose_weights_it_has() -> None:
    embedding = BackboneEncoder(PoolingBackbone(), 8, ())
    assert embedding.outputs == ("latents",)
    assert embedding.weights == PoolingBackbone.weights
    assert embedding.describe() == "pooled pixels, to stride 8"
    grey = encoder.build("scattering")
    assert (grey.outputs, grey.weights) == (("latents",), None)


def test_weights_are_rounded_as_bundles_store_them() -> None:
    backbone = PoolingBackbone()
    backbone.weight = torch.nn.Parameter(torch.tensor([1 / 3]))
    BackboneEncoder(backbone, 16, (8, 16))
    assert backbone.weight.item() == np.float16(1 / 3)


@pytest.mark.parametrize("keep_images", [True, False])
def test_features_are_those_of_the_exported_encoder(tmp_path: Path, keep_images: bool) -> None:
    module, images = FakeEncoder().module, normal_images(MAX_BATCH_IMAGES + 3)
    onnx_export.write(
        Graph(module, {"images": torch.from_numpy(images[:2])}, module.outputs),
        tmp_path / "encoder.onnx",
    )
    found = exported(tmp_path / "encoder.onnx").encode(images, keep_images)
    latents, fine, coarse = (each.numpy() for each in module(torch.from_numpy(images)))
    features: Tensors = {
        "features_8": fine.astype(np.float16),
        "features_16": coarse.astype(np.float16),
    }
    expected: Tensors = {"latents": latents, **features}
    if keep_images:
        expected["images"] = images
    assert found.arrays.keys() == expected.keys()
    for name, array in expected.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_allclose(found.arrays[name], array, rtol=1e-3)
    assert [len(batch["latents"]) for batch in found.batches()] == [MAX_BATCH_IMAGES, 3]


def test_the_graph_of_one_size_is_made_into_that_of_another(tmp_path: Path) -> None:
    module, small, large = FakeEncoder().module, normal_images(3), normal_images(3, side=2 * SIDE)
    onnx_export.write(
        Graph(module, {"images": torch.from_numpy(small[:2])}, module.outputs),
        tmp_path / "small.onnx",
    )
    onnx_export.resize(tmp_path / "small.onnx", large.shape[1:3], tmp_path / "large.onnx")
    found = exported(tmp_path / "large.onnx").encode(large, keep_images=False)
    assert found.arrays["features_8"].shape[2:] == (2 * SIDE // 8, 2 * SIDE // 8)
    for name, tensor in zip(module.outputs, module(torch.from_numpy(large)), strict=True):
        np.testing.assert_allclose(found.arrays[name], tensor, rtol=1e-3)


def test_large_images_come_in_smaller_batches(tmp_path: Path) -> None:
    module, images = FakeEncoder().module, np.zeros((5, 512, 512, 3), np.uint8)
    onnx_export.write(
        Graph(module, {"images": torch.from_numpy(images[:2])}, module.outputs),
        tmp_path / "encoder.onnx",
    )
    found = exported(tmp_path / "encoder.onnx").encode(images, keep_images=False)
    assert [len(batch["latents"]) for batch in found.take(np.arange(1, 5)).batches()] == [2, 2]
