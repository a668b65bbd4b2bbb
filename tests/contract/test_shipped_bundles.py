"""What every bundle in `models/` promises, held against what the service makes of it."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from service.inference.engine import OnnxEngine
from service.registry import LoadedModel, load
from service.repository import BundlePlace, ModelRepository
from tests.conftest import DATA
from training import idx
from training.export import FLOAT_TOLERANCE, OTHER_TOLERANCES

MODELS = Path(__file__).parents[2] / "models"
PLACES = ModelRepository(MODELS).places()
DIGITS = idx.read(DATA / "mnist" / "t10k-images-idx3-ubyte.gz")[..., None]
CLOTHES = idx.read(DATA / "fashion-mnist" / "t10k-images-idx3-ubyte.gz")[..., None]
LABELS = idx.read(DATA / "mnist" / "t10k-labels-idx1-ubyte.gz")
AT_MOST = {
    "mnist-undercomplete": {"mse": 0.0007},
    "mnist-stacked": {"mse": 0.0018},
    "mnist-stacked-sigmoid": {"mse": 0.0010},
    "mnist-latent2": {"mse": 0.0345},
    "fashion-latent3": {"mse": 0.0185},
    "mnist-vae": {"nll": 84.0},
    "fashion-vae": {"mse": 0.008},
}
AT_LEAST = {
    "mnist-denoising": {"psnr": 21.5, "ssim": 0.90},
    "mnist-classifier": {"accuracy": 0.994},
    "fashion-vae": {"elbo": 1260.0},
    "mnist-classifier-conv": {"accuracy": 0.996},
}
AUROC = {"mnist-latent2": 0.9}  # two numbers give back few digits well, so few scores are low
ALLOWED = {"", "ai.onnx"}


@pytest.fixture(scope="module", params=PLACES, ids=str)
def place(request: pytest.FixtureRequest) -> BundlePlace:
    found: BundlePlace = request.param
    return found


@pytest.fixture(scope="module")
def model(place: BundlePlace) -> LoadedModel:
    return load(place, ModelRepository(MODELS).read(place), OnnxEngine("cpu"))


def test_the_promised_models_are_shipped() -> None:
    assert {place.name for place in PLACES} >= {"mnist-undercomplete", "mnist-denoising", "mnist-vae"}


def test_all_bundles_together_stay_small() -> None:
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < 25_000_000


def test_every_file_of_a_bundle_is_listed(place: BundlePlace, model: LoadedModel) -> None:
    beside = {"manifest.json", "README.md"}
    assert {path.name for path in place.directory.iterdir() if path.is_file()} == set(model.manifest.files) | beside


def test_no_graph_draws_chance_or_leaves_the_standard_operators(place: BundlePlace, model: LoadedModel) -> None:
    for file in model.manifest.graphs.values():
        proto = onnx.load(place.directory / file)
        onnx.checker.check_model(proto, full_check=True)
        for node in proto.graph.node:
            assert node.domain in ALLOWED
            assert not node.op_type.startswith(("Random", "Multinomial", "Bernoulli"))
            assert not node.metadata_props


def test_any_batch_gives_what_single_images_give(model: LoadedModel) -> None:
    chain, outputs = ["encoder", "decoder", "scorer"], ["latents", "intensities", "reconstructions", "scores"]
    together = model.run(chain, {"images": DIGITS[:7]}, outputs)
    for index in range(7):
        alone = model.run(chain, {"images": DIGITS[index : index + 1]}, outputs)
        for name in outputs:
            step = 1 if name == "reconstructions" else 1e-5
            difference = np.abs(alone[name][0].astype(np.float64) - together[name][index].astype(np.float64))
            assert difference.max() <= step, name


def test_reconstructions_are_intensities_rounded(model: LoadedModel) -> None:
    found = model.run(["encoder", "decoder"], {"images": DIGITS}, ["intensities", "reconstructions"])
    assert found["intensities"].min() >= 0
    assert found["intensities"].max() <= 1
    np.testing.assert_allclose(found["reconstructions"], found["intensities"] * 255, atol=0.51)


def test_scores_tell_what_was_learned_from_what_was_not(model: LoadedModel) -> None:
    chain = ["encoder", "decoder", "scorer"]
    seen, strange = (CLOTHES, DIGITS) if model.manifest.name.startswith("fashion") else (DIGITS, CLOTHES)
    normal, odd = (model.run(chain, {"images": images}, ["scores"])["scores"] for images in (seen, strange))
    assert np.mean(normal[:, None] < odd) > AUROC.get(model.manifest.name, 0.95)
    assert model.conformal is not None
    assert (model.conformal.p_values(normal) <= 0.05).mean() < 0.15


def test_distances_of_latents_are_calibrated(model: LoadedModel) -> None:
    seen = CLOTHES if model.manifest.name.startswith("fashion") else DIGITS
    found = model.run(["encoder", "decoder", "scorer"], {"images": seen}, ["latent_distances"])["latent_distances"]
    assert model.manifest.calibration is not None
    deciles = model.manifest.calibration.latent_deciles
    assert len(deciles) == 9
    assert abs(np.searchsorted(deciles, found).mean() - 4.5) < 1  # each share as full as the others


def test_samples_are_drawn_from_the_prior(model: LoadedModel) -> None:
    assert model.prior is not None
    latents = model.prior.draw(32, 1, 1.0)
    assert latents.shape == (32, model.manifest.latent_dim)
    images = model.run(["decoder"], {"latents": latents}, ["reconstructions"])["reconstructions"]
    assert 10 < images.mean() < 80  # of real digits it is 33
    assert images.std(axis=0).max() > 50


def test_classes_are_named_rightly(model: LoadedModel) -> None:
    if "classify" not in model.manifest.capabilities:
        pytest.skip("this model names no classes")
    found = model.run(["encoder", "classifier"], {"images": DIGITS}, ["probabilities"])["probabilities"]
    assert model.manifest.classes == tuple("0123456789")
    assert (found.argmax(axis=1) == LABELS).mean() > 0.97


def test_the_shipped_figures_are_the_goals_or_better(model: LoadedModel) -> None:
    metrics = model.manifest.metrics
    for figure, bound in AT_MOST.get(model.manifest.name, {}).items():
        assert metrics[figure] <= bound
    for figure, bound in AT_LEAST.get(model.manifest.name, {}).items():
        assert metrics[figure] >= bound
    if "pca_mse" in metrics and "denoise" not in model.manifest.capabilities:
        assert metrics["mse"] < metrics["pca_mse"]
    for output, difference in model.manifest.provenance.parity.items():
        assert difference <= OTHER_TOLERANCES.get(output, FLOAT_TOLERANCE)
