"""Promises of every bundle in `models/`, compared with what the service computes."""

import numpy as np
import onnx
import pytest

from bundle.conformal import ConformalScores
from bundle.index import INDEX, read_digests, render_index
from bundle.manifest import GRAPHS, GraphName, InputSpec, ModelManifest
from bundle.tensors import Images, TensorName, Tensors
from service.registry.loaded_model import LoadedModel
from service.registry.repository import BundleLocation, ModelRepository
from tests.bundles import open_bundle
from tests.conftest import DATA, MODELS
from training.data import image_file, mnist
from training.export.parity import DETECTOR_TOLERANCE, FLOAT_TOLERANCE, OTHER_TOLERANCES
from training.progress import silence

LOCATIONS = ModelRepository(MODELS).locations()
DIGITS = mnist.read(DATA / "mnist" / "t10k-images-idx3-ubyte.gz")[..., None]
CLOTHES = mnist.read(DATA / "fashion-mnist" / "t10k-images-idx3-ubyte.gz")[..., None]
LABELS = mnist.read(DATA / "mnist" / "t10k-labels-idx1-ubyte.gz")
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
    "cookies": {"auroc_against_defects": 0.99, "pixel_auroc": 0.965},
}
AUROC = {"mnist-latent2": 0.9}  # two numbers reconstruct few digits well, so few scores are low
ALLOWED = {"", "ai.onnx"}
COMPARED: tuple[TensorName, ...] = (
    "latents",
    "intensities",
    "reconstructions",
    "scores",
    "probabilities",
)


@pytest.fixture(scope="module", params=LOCATIONS, ids=str)
def location(request: pytest.FixtureRequest) -> BundleLocation:
    found: BundleLocation = request.param
    return found


@pytest.fixture(scope="module")
def model(location: BundleLocation) -> LoadedModel:
    return open_bundle(ModelRepository(MODELS), location)


@pytest.fixture
def detector(model: LoadedModel) -> LoadedModel:
    """A model that scores: most autoencoders are detectors, too."""
    if "anomaly-score" not in model.manifest.capabilities:
        pytest.skip("this model has no anomaly score")
    return model


@pytest.fixture
def autoencoder(model: LoadedModel) -> LoadedModel:
    if "reconstruct" not in model.manifest.capabilities:
        pytest.skip("this model reconstructs nothing")
    return model


def photographs(kind: str, spec: InputSpec) -> Images:
    paths = sorted((DATA / "cookies" / "test" / kind).iterdir())
    return image_file.decode(paths, spec, silence)


def normal_and_anomalous(model: LoadedModel) -> tuple[Images, Images]:
    """Held-out images of the kind that a model was trained on, and images of another kind."""
    spec = model.manifest.input
    if spec.channels == 3:
        return photographs("good", spec), photographs("cracked", spec)
    return (CLOTHES, DIGITS) if model.manifest.name.startswith("fashion") else (DIGITS, CLOTHES)


def everything(model: LoadedModel, images: Images) -> Tensors:
    """Outputs of all graphs that are compared."""
    graphs: list[GraphName] = [name for name in GRAPHS if name in model.sessions]
    given = {output for session in model.sessions.values() for output in session.outputs}
    outputs = [name for name in COMPARED if name in given]
    return model.chain.run(graphs, {"images": images}, outputs)


def test_the_promised_models_are_shipped() -> None:
    assert {location.name for location in LOCATIONS} >= {
        "mnist-undercomplete",
        "mnist-denoising",
        "mnist-vae",
        "cookies",
    }


def test_the_index_has_all_bundles() -> None:
    assert (MODELS / INDEX).read_bytes() == render_index(read_digests(MODELS))


def test_all_bundles_together_stay_small() -> None:
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < 48_000_000


def test_detectors_of_one_working_size_share_one_encoder() -> None:
    encoders: dict[tuple[int, ...], set[str | None]] = {}
    for each in LOCATIONS:
        manifest: ModelManifest = ModelRepository(MODELS).read(each)
        if manifest.selection and manifest.provenance.backbone:
            encoders.setdefault(manifest.input.shape, set()).add(manifest.encoder)
    assert all(len(digests) == 1 for digests in encoders.values())


def test_every_file_of_a_bundle_is_listed(location: BundleLocation, model: LoadedModel) -> None:
    beside = {"manifest.json", "README.md"}
    assert {path.name for path in location.directory.iterdir() if path.is_file()} == set(
        model.manifest.files
    ) | beside


def test_a_detector_of_photographs_is_small_and_not_weak(
    location: BundleLocation, model: LoadedModel
) -> None:
    selection = model.manifest.selection
    if selection is None:
        pytest.skip("this model was not chosen by trials")
    assert selection.weak is None
    assert (
        sum(path.stat().st_size for path in location.directory.iterdir() if path.is_file())
        < 10_000_000
    )
    assert (
        sum(path.stat().st_size for path in (location.directory / "report").iterdir()) < 3_000_000
    )


def test_no_graph_draws_random_numbers_or_leaves_the_standard_operators(
    location: BundleLocation, model: LoadedModel
) -> None:
    for file in model.manifest.graphs.values():
        proto = onnx.load(location.directory / file)
        onnx.checker.check_model(proto, full_check=True)
        for node in proto.graph.node:
            assert node.domain in ALLOWED
            assert not node.op_type.startswith(("Random", "Multinomial", "Bernoulli"))
            assert not node.metadata_props


def test_any_batch_gives_the_same_as_single_images(model: LoadedModel) -> None:
    images = normal_and_anomalous(model)[0][:7]
    together = everything(model, images)
    for index in range(len(images)):
        for name, alone in everything(model, images[index : index + 1]).items():
            difference = np.abs(
                alone[0].astype(np.float64) - together[name][index].astype(np.float64)
            )
            assert difference.max() <= allowed(name, model), name


def test_reconstructions_are_intensities_rounded(autoencoder: LoadedModel) -> None:
    images = normal_and_anomalous(autoencoder)[0]
    found = autoencoder.chain.run(
        ["encoder", "decoder"], {"images": images}, ["intensities", "reconstructions"]
    )
    assert found["intensities"].min() >= 0
    assert found["intensities"].max() <= 1
    np.testing.assert_allclose(found["reconstructions"], found["intensities"] * 255, atol=0.51)


def test_embeddings_of_a_backbone_have_a_length_of_one(model: LoadedModel) -> None:
    if model.manifest.provenance.backbone is None:
        pytest.skip("this model has no backbone")
    latents = everything(model, normal_and_anomalous(model)[1])["latents"]
    np.testing.assert_allclose(np.linalg.norm(latents, axis=1), 1, atol=1e-5)
    assert np.ptp(latents, axis=0).max() > 0.01


def test_anomalous_images_score_higher_than_normal_ones(detector: LoadedModel) -> None:
    chain = detector.graphs["anomaly-score"]
    normal, anomalous = (
        detector.chain.run(chain, {"images": images}, ["scores"])["scores"]
        for images in normal_and_anomalous(detector)
    )
    assert np.mean(normal[:, None] < anomalous) > AUROC.get(detector.manifest.name, 0.95)
    assert detector.manifest.calibration is not None
    conformal = ConformalScores(detector.manifest.calibration)
    called = int((conformal.p_values(normal) <= 0.05).sum())
    assert called <= max(1, 0.15 * len(normal))


def test_distances_of_latents_are_calibrated(detector: LoadedModel) -> None:
    images, _ = normal_and_anomalous(detector)
    found = detector.chain.run(
        detector.graphs["anomaly-score"], {"images": images}, ["latent_distances"]
    )["latent_distances"]
    assert detector.manifest.calibration is not None
    deciles = detector.manifest.calibration.latent_deciles
    assert len(deciles) == 9
    deviation = np.sqrt(8.25 / len(found))  # of the mean of as many numbers from 0 to 9
    assert (
        abs(np.searchsorted(deciles, found).mean() - 4.5) < 4 * deviation
    )  # each share as full as the others


def test_samples_are_drawn_from_the_prior(model: LoadedModel) -> None:
    if model.prior is None:
        pytest.skip("this model has no prior")
    latents = model.prior.draw(32, 1, 1.0)
    assert latents.shape == (32, model.manifest.latent_dim)
    images = model.chain.run(["decoder"], {"latents": latents}, ["reconstructions"])[
        "reconstructions"
    ]
    assert 10 < images.mean() < 80  # of real digits it is 33
    assert images.std(axis=0).max() > 50


def test_classes_are_named_rightly(model: LoadedModel) -> None:
    if "classify" not in model.manifest.capabilities:
        pytest.skip("this model names no classes")
    found = model.chain.run(["encoder", "classifier"], {"images": DIGITS}, ["probabilities"])[
        "probabilities"
    ]
    assert model.manifest.classes == tuple("0123456789")
    assert (found.argmax(axis=1) == LABELS).mean() > 0.97


def allowed(output: str, model: LoadedModel) -> float:
    """Largest difference between two ways to compute the same output."""
    if model.manifest.selection and output in ("scores", "error_maps"):
        return DETECTOR_TOLERANCE
    return OTHER_TOLERANCES.get(output, FLOAT_TOLERANCE)


def test_the_shipped_metrics_are_the_goals_or_better(model: LoadedModel) -> None:
    metrics = model.manifest.metrics
    for metric, bound in AT_MOST.get(model.manifest.name, {}).items():
        assert metrics[metric] <= bound
    for metric, bound in AT_LEAST.get(model.manifest.name, {}).items():
        assert metrics[metric] >= bound
    if "pca_mse" in metrics and "denoise" not in model.manifest.capabilities:
        assert metrics["mse"] < metrics["pca_mse"]
    for output, difference in model.manifest.provenance.parity.items():
        assert difference <= allowed(output, model)
