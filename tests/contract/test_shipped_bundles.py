"""What every bundle in `models/` promises, held against what the service makes of it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from service.inference.engine import OnnxEngine
from service.registry import LoadedModel, load
from service.repository import BundlePlace, ModelRepository
from tests.conftest import DATA
from training import idx
from training.data import Images
from training.export import DETECTOR_TOLERANCE, FLOAT_TOLERANCE, OTHER_TOLERANCES

MODELS = Path(__file__).parents[2] / "models"
PLACES = ModelRepository(MODELS).places()
DIGITS = idx.read(DATA / "mnist" / "t10k-images-idx3-ubyte.gz")[..., None]
CLOTHES = idx.read(DATA / "fashion-mnist" / "t10k-images-idx3-ubyte.gz")[..., None]
LABELS = idx.read(DATA / "mnist" / "t10k-labels-idx1-ubyte.gz")
WHOLE, CRACKED = (
    np.stack([np.asarray(Image.open(path)) for path in sorted((DATA / "cookies-256" / kind).iterdir())])
    for kind in ("good", "cracked")
)
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
    "cookies": {"auroc_against_defects": 0.98, "pixel_auroc": 0.95},
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


def seen_and_strange(model: LoadedModel) -> tuple[Images, Images]:
    """Images of the kind that a model was trained on, but none of those, and of another."""
    if model.manifest.name == "cookies":
        return WHOLE, CRACKED
    return (CLOTHES, DIGITS) if model.manifest.name.startswith("fashion") else (DIGITS, CLOTHES)


def test_the_promised_models_are_shipped() -> None:
    assert {place.name for place in PLACES} >= {"mnist-undercomplete", "mnist-denoising", "mnist-vae", "cookies"}


def test_all_bundles_together_stay_small() -> None:
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < 40_000_000


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
    images = seen_and_strange(model)[0][:7]
    together = model.run(chain, {"images": images}, outputs)
    for index in range(len(images)):
        alone = model.run(chain, {"images": images[index : index + 1]}, outputs)
        for name in outputs:
            step = allowed(name, model)
            difference = np.abs(alone[name][0].astype(np.float64) - together[name][index].astype(np.float64))
            assert difference.max() <= step, name


def test_reconstructions_are_intensities_rounded(model: LoadedModel) -> None:
    images = seen_and_strange(model)[0]
    found = model.run(["encoder", "decoder"], {"images": images}, ["intensities", "reconstructions"])
    assert found["intensities"].min() >= 0
    assert found["intensities"].max() <= 1
    np.testing.assert_allclose(found["reconstructions"], found["intensities"] * 255, atol=0.51)


def test_scores_tell_what_was_learned_from_what_was_not(model: LoadedModel) -> None:
    chain = ["encoder", "decoder", "scorer"]
    normal, odd = (model.run(chain, {"images": images}, ["scores"])["scores"] for images in seen_and_strange(model))
    assert np.mean(normal[:, None] < odd) > AUROC.get(model.manifest.name, 0.95)
    assert model.conformal is not None
    assert (model.conformal.p_values(normal) <= 0.05).mean() < 0.15


def test_distances_of_latents_are_calibrated(model: LoadedModel) -> None:
    images, _ = seen_and_strange(model)
    found = model.run(["encoder", "decoder", "scorer"], {"images": images}, ["latent_distances"])["latent_distances"]
    assert model.manifest.calibration is not None
    deciles = model.manifest.calibration.latent_deciles
    assert len(deciles) == 9
    deviation = np.sqrt(8.25 / len(found))  # of the mean of as many numbers from 0 to 9
    assert abs(np.searchsorted(deciles, found).mean() - 4.5) < 4 * deviation  # each share as full as the others


def test_samples_are_drawn_from_the_prior(model: LoadedModel) -> None:
    if model.prior is None:
        pytest.skip("this model has no prior")
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


def allowed(output: str, model: LoadedModel) -> float:
    """Between two ways to compute the same."""
    if model.manifest.selection and output in ("scores", "error_maps"):
        return DETECTOR_TOLERANCE
    return OTHER_TOLERANCES.get(output, FLOAT_TOLERANCE)


def test_the_shipped_figures_are_the_goals_or_better(model: LoadedModel) -> None:
    metrics = model.manifest.metrics
    for figure, bound in AT_MOST.get(model.manifest.name, {}).items():
        assert metrics[figure] <= bound
    for figure, bound in AT_LEAST.get(model.manifest.name, {}).items():
        assert metrics[figure] >= bound
    if "pca_mse" in metrics and "denoise" not in model.manifest.capabilities:
        assert metrics["mse"] < metrics["pca_mse"]
    for output, difference in model.manifest.provenance.parity.items():
        assert difference <= allowed(output, model)
