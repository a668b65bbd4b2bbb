"""A folder of normal photographs becomes a calibrated detector that the service loads."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from bundle.manifest import MANIFEST, ModelManifest, compute_sha256
from bundle.tensors import TensorName
from service.app import build_services, create_app
from service.registry.drift import DRIFT_OUTPUTS
from service.registry.loaded_model import LoadedModel
from service.registry.repository import ModelRepository
from service.settings import Settings
from tests.bundles import open_bundle
from tests.conftest import DATA
from tests.training.conftest import COOKIES
from training import cli, recipe
from training.architectures.backbones.efficientnet_lite import WEIGHTS
from training.config import Size
from training.detector.components import BASELINES
from training.detector.synthetic_anomalies import KINDS
from training.errors import DataError, RecipeError, WeakDetectorError
from training.export.published import CARD, GOLDEN, REPORT, PublishedBundle
from training.pipeline import evaluate, republish, train_detector
from training.pipeline.destinations import ModelsDirectory
from training.pipeline.train_detector import open_encoders
from training.progress import Log, silence
from training.recipe import DetectorRecipe

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = [
    "detector.sizes=[[256, 192]]",
    "detector.candidates=['neighbours']",
    "detector.banks=[200]",
]
FEW = ["detector.sizes=[64]", "detector.candidates=['gaussians']", "detector.folds=4", "seed=1"]
# SHA-256 of the encoder by working size; another version of torch or onnx may export other bytes.
ENCODERS: dict[Size, str] = {
    (64, 64): "674a3586087b0ec660154bbce61f1dde4b9ff9baa19b1f3d897083279ef25b2e",
    (256, 192): "ddb06a5776bd7c3c0f844f9684032d428a8ad45e426a4352dc060560bc654fa9",
    (256, 256): "8cc96ac72e420602d3643984b466c34b1baeb9386a9c5a9e5882f5edc6f7062e",
    (320, 320): "e097f6af25ca582943925fe6397a4fdc05f4efaf3af3d2fd67ee123e8f4a9c07",
    (384, 384): "6d50aa1ef30e7159a995f064621114234dacdde58dc3f966d957399e8f8e3a9b",
    (512, 512): "7d80889cb04426037e9c2b7f6dd5cd8bd8c01e70322787ab09a3498a72dd2026",
}


def of(name: str, *overrides: str) -> DetectorRecipe:
    chosen = recipe.load(name, overrides)
    assert isinstance(chosen, DetectorRecipe)
    return chosen


def run(
    chosen: DetectorRecipe, data: Path, models: Path, accept_weak: bool = False, log: Log = silence
) -> Path:
    destination = ModelsDirectory(models)
    return train_detector.run(chosen, data, destination, accept_weak, log).directory


def read(directory: Path) -> ModelManifest:
    return ModelManifest.model_validate_json((directory / MANIFEST).read_bytes())


def open_model(directory: Path) -> LoadedModel:
    repository = ModelRepository(directory.parents[1])
    location = next(each for each in repository.locations() if each.directory == directory)
    return open_bundle(repository, location)


@pytest.fixture(scope="module")
def logged() -> list[str]:
    return []


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, logged: list[str]) -> Path:
    return run(
        of("photo-anomaly", *SMALL), COOKIES, tmp_path_factory.mktemp("models"), log=logged.append
    )


@pytest.fixture(scope="module")
def model(published: Path) -> LoadedModel:
    return open_model(published)


@pytest.fixture(scope="module")
def manifest(published: Path) -> ModelManifest:
    return read(published)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photographs of noise."""
    directory = tmp_path_factory.mktemp("noise")
    for index, image in enumerate(
        np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    ):
        Image.fromarray(image).save(directory / f"{index}.png")
    return directory


@pytest.fixture(scope="module")
def weak(noise: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(
        of("photo-anomaly", *FEW), noise, tmp_path_factory.mktemp("models"), accept_weak=True
    )


def test_a_detector_encodes_and_scores(published: Path, manifest: ModelManifest) -> None:
    assert manifest.capabilities == ("encode", "anomaly-score")
    assert manifest.graphs == {"encoder": "encoder.onnx", "scorer": "scorer.onnx"}
    assert (manifest.latent_dim, manifest.max_batch, manifest.prior) == (112, 8, None)
    assert manifest.input.shape == (256, 192, 3)
    assert manifest.input.reducing_gap == 1.5
    assert {path.name for path in published.iterdir()} == {*manifest.files, MANIFEST, CARD, REPORT}
    assert sum(path.stat().st_size for path in published.iterdir()) < 10_000_000


def test_the_service_scores_as_the_pipeline_and_follows_drift(
    published: Path, model: LoadedModel
) -> None:
    images = np.stack(
        [np.asarray(Image.open(path)) for path in sorted((COOKIES / "test").rglob("*.jpg"))]
    )
    outputs: list[TensorName] = ["latents", "scores", "error_maps", "latent_distances"]
    chain = model.graphs["anomaly-score"]
    assert chain == ("encoder", "scorer")
    found = model.chain.run(chain, {"images": images}, outputs)
    expected = PublishedBundle(published).graphs.chain(chain, images=images)
    for name in outputs:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-3)
    assert found["error_maps"].shape == (10, 256, 192)
    np.testing.assert_allclose(np.linalg.norm(found["latents"], axis=1), 1, atol=1e-5)
    assert model.find_outputs("encode", DRIFT_OUTPUTS) == ("latents",)
    assert model.find_outputs("anomaly-score", DRIFT_OUTPUTS) == ("scores", "latent_distances")


def test_it_scores_and_encodes_over_http(published: Path, manifest: ModelManifest) -> None:
    services = build_services(Settings(models=published.parents[1], device="cpu"))
    cracked = sorted((COOKIES / "test" / "cracked").iterdir())
    files = [("images", (path.name, path.read_bytes())) for path in cracked]
    with TestClient(create_app(services)) as client:
        scored = client.post(
            "/v1/models/photo-anomaly/anomaly-score?heatmap=true", files=files
        ).json()
        encoded = client.post("/v1/models/photo-anomaly/encode", files=files).json()
        refused = client.post("/v1/models/photo-anomaly/reconstruct", files=files)
    assert np.mean([result["p_value"] for result in scored["results"]]) < 0.2
    assert np.shape(encoded["latents"]) == (5, 112)
    assert encoded["encoder"] == manifest.encoder
    assert refused.status_code == 404


def test_the_golden_vectors_hold_one_image_and_no_feature_maps(published: Path) -> None:
    with np.load(published / GOLDEN) as golden:
        assert {*golden.files} == {"images", "latents", "scores", "error_maps", "latent_distances"}
        assert all(len(golden[name]) == 1 for name in golden.files)


def test_every_photograph_calibrates_by_cross_fitting(
    manifest: ModelManifest, logged: list[str]
) -> None:
    assert manifest.calibration is not None
    assert len(manifest.calibration.scores) == 20
    assert len(manifest.calibration.latent_deciles) == 9
    assert manifest.calibration.method.endswith("each image by components fitted without it")
    assert manifest.training_data.images == {"training": 20, "calibration": 20, "test": 5}
    assert "calibrating on 20 images, in 20 folds" in logged
    assert any(
        line.startswith("20 normal images: the minimum false positive rate is 1 in 21")
        for line in logged
    )


def test_the_trials_measure_the_detector_beside_baselines(manifest: ModelManifest) -> None:
    selection = manifest.selection
    assert selection is not None
    assert selection.score == selection.map == ("neighbours",)
    assert selection.synthetic.keys() == {"neighbours", "chosen", *BASELINES}
    assert selection.recall.keys() == {"0.05", "0.1", "0.2"}
    for table in (selection.synthetic, selection.recall):
        assert all(of.keys() == KINDS.keys() for of in table.values())
    assert selection.weak is None
    assert selection.compared == {
        "neighbours at 256x192, bank of 200": pytest.approx(0.73, abs=0.1)
    }


def test_labelled_images_measure_it_beside_baselines(manifest: ModelManifest) -> None:
    title = "auroc_against_defects"
    metrics = {
        title,
        f"{title}_cracked",
        f"{title}_se",
        "pixel_auroc",
        "aupro",
        "false_positive_rate_at_0.1",
    }
    baselines = {f"{name.replace('-', '_')}_{title}" for name in BASELINES}
    assert metrics | baselines <= manifest.metrics.keys()
    assert manifest.metrics[title] > 0.9
    assert manifest.metrics["pixel_auroc"] > 0.9


def test_card_and_manifest_name_the_weights_and_their_licence(
    published: Path, manifest: ModelManifest
) -> None:
    assert manifest.provenance.backbone == WEIGHTS
    card = (published / CARD).read_text()
    for text in (WEIGHTS.name, WEIGHTS.source, WEIGHTS.licence, WEIGHTS.trained_on):
        assert text in card


def test_an_interrupted_command_leaves_the_handling_of_signals_as_it_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_detector, "run", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(["train", "photo-anomaly", "--data", "any"]) == 143
    assert capsys.readouterr().err == "interrupted; nothing was published\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_encoder_of_a_working_size_is_the_same_everywhere() -> None:
    with open_encoders(of("photo-anomaly")) as encoders:
        assert {size: compute_sha256(encoders.export(size)) for size in ENCODERS} == ENCODERS


def test_the_encoder_is_the_same_whatever_the_data_and_the_seed(
    manifest: ModelManifest, weak: Path
) -> None:
    for found in (manifest, read(weak)):
        assert found.encoder == ENCODERS[found.input.height, found.input.width]


def test_the_report_is_one_page(published: Path) -> None:
    page = (published / REPORT / "index.html").read_text()
    for text in ("neighbours", *BASELINES, *KINDS):
        assert text in page
    assert (published / REPORT / "heatmaps.png").is_file()


def test_it_can_be_measured_again(published: Path, manifest: ModelManifest) -> None:
    again = evaluate.measure(manifest.name, COOKIES, published.parents[1], silence)
    assert again == pytest.approx(manifest.metrics)
    with pytest.raises(
        DataError, match="the files are not those that photo-anomaly was trained with"
    ):
        evaluate.measure(manifest.name, COOKIES / "train" / "good", published.parents[1], silence)


def test_it_can_be_calibrated_on_other_photographs(
    published: Path, manifest: ModelManifest, tmp_path: Path
) -> None:
    shutil.copytree(published.parent, tmp_path / "models" / manifest.name)
    (tmp_path / "good").mkdir()
    for path in (COOKIES / "train" / "good").iterdir():
        for shift in (1, 2, 3):
            moved = np.roll(np.asarray(Image.open(path)), shift, axis=1)
            Image.fromarray(moved).save(tmp_path / "good" / f"{path.stem}-{shift}.png")
    again = republish.recalibrate(
        manifest.name, tmp_path / "good", tmp_path / "models", silence
    ).directory
    calibrated = read(again)
    assert calibrated.calibration is not None
    assert manifest.calibration is not None
    assert len(calibrated.calibration.scores) == 60
    assert "fitted without it" not in calibrated.calibration.method
    assert calibrated.calibration.latent_deciles != manifest.calibration.latent_deciles
    assert calibrated.encoder == manifest.encoder
    assert (again / REPORT / "index.html").is_file()
    assert "anomaly-score" in open_model(again).graphs


def test_it_is_not_calibrated_on_its_training_images(
    published: Path, manifest: ModelManifest
) -> None:
    with pytest.raises(DataError, match="was trained on the images in"):
        republish.recalibrate(
            manifest.name, COOKIES / "train" / "good", published.parents[1], silence
        )


def test_it_is_not_converted_to_fp16(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "convert-fp16",
        "photo-anomaly",
        "--data",
        str(COOKIES),
        "--models",
        str(published.parents[1]),
    ]
    assert cli.main(command) == 1
    assert "photo-anomaly is a detector" in capsys.readouterr().err


def test_noise_is_refused(noise: Path, tmp_path: Path) -> None:
    with pytest.raises(
        WeakDetectorError,
        match=r"(?s)photo-anomaly is refused: of larger synthetic anomalies, "
        r".*--accept-weak publishes it",
    ):
        run(of("photo-anomaly", *FEW), noise, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_the_card_says_that_a_detector_is_weak(weak: Path) -> None:
    selection = read(weak).selection
    assert selection is not None
    assert selection.weak is not None
    assert f"- **Weak**: {selection.weak}" in (weak / CARD).read_text()


def test_five_photographs_are_enough_and_none_is_held_out(weak: Path) -> None:
    found = read(weak)
    assert found.training_data.images == {"training": 5, "calibration": 5, "test": 0}
    assert found.metrics == {}
    assert (weak / REPORT / "index.html").is_file()
    assert "anomaly-score" in open_model(weak).graphs


def test_one_class_is_separated_from_the_others(tmp_path: Path) -> None:
    path = run(
        of("one-class", "data.only=1", "data.calibration=15"), DATA, tmp_path, accept_weak=True
    )
    manifest, model = read(path), open_model(path)
    assert manifest.metrics["auroc_against_other_classes"] > 0.95
    assert {
        f"auroc_against_other_classes_{digit}" for digit in "023456789"
    } <= manifest.metrics.keys()
    assert manifest.metrics["false_positive_rate_at_0.1"] < 0.4
    assert manifest.provenance.backbone is None
    assert manifest.selection is not None
    assert (manifest.selection.score, manifest.selection.map) == (
        ("nearest-images",),
        ("pca-peak",),
    )
    assert model.graphs["anomaly-score"] == ("encoder", "scorer")
    assert manifest.calibration is not None
    assert len(manifest.calibration.scores) == manifest.training_data.images["calibration"] == 15


def test_clothes_are_separated_from_digits(tmp_path: Path) -> None:
    data, clothes = tmp_path / "data", DATA / "fashion-mnist" / "t10k-images-idx3-ubyte.gz"
    shutil.copytree(DATA / "mnist", data / "mnist")
    (data / "fashion-mnist").mkdir()
    for part in ("train", "t10k"):
        shutil.copy(clothes, data / "fashion-mnist" / f"{part}-images-idx3-ubyte.gz")
    path = run(
        of("fashion-anomaly", "data.calibration=20"), data, tmp_path / "models", accept_weak=True
    )
    assert read(path).metrics["auroc_against_mnist"] > 0.9


@pytest.mark.parametrize(
    ("name", "overrides", "complaint"),
    [
        (
            "photo-anomaly",
            ["detector.folds=1"],
            "detector.folds: Input should be greater than or equal to 2",
        ),
        (
            "photo-anomaly",
            ["detector.candidates=['neighbour']"],
            r"detector\.candidates\.0\.0: Input should be 'local-neighbours'",
        ),
        (
            "photo-anomaly",
            ["detector.candidates=['gaussians', 'gaussians']"],
            "a candidate occurs twice; name each once",
        ),
        ("photo-anomaly", ["detector.sizes=[100]"], "100x100 is not a multiple of 64 pixels"),
        (
            "photo-anomaly",
            ["detector.extents=[0, 0.2]"],
            r"extents: \[0\.0, 0\.2\] must be above 0 and rise",
        ),
        (
            "photo-anomaly",
            ["detector.extents=[0.3, 0.2]"],
            r"extents: \[0\.3, 0\.2\] must be above 0 and rise",
        ),
        (
            "photo-anomaly",
            ["input.white_16_bit=3"],
            "input.white_16_bit: Input should be greater than or equal to 255",
        ),
        (
            "photo-anomaly",
            ["input.reducing_gap=0.5"],
            "input.reducing_gap: Input should be greater than or equal to 1",
        ),
        (
            "photo-anomaly",
            ["detector.size=256"],
            "detector.size: there is no such entry; did you mean 'sizes'",
        ),
        ("photo-anomaly", ["input.channels=1"], "input.channels must be 3"),
        ("photo-anomaly", ["training.epochs=3"], "training: there is no such entry"),
        ("photo-anomaly", ["data.dataset=folder"], "is folder, but a detector takes photographs"),
        (
            "photo-anomaly",
            ["detector.candidates=['gaussians + gaussians']"],
            "a sum has a component twice; name each once",
        ),
        (
            "one-class",
            ["detector.candidates=['gaussians']"],
            "gaussians need the feature maps of a backbone",
        ),
        ("one-class", ["data.licence=mine"], "are known"),
    ],
)
def test_recipes_that_make_no_detector_are_refused(
    name: str, overrides: list[str], complaint: str
) -> None:
    with pytest.raises(RecipeError, match=complaint):
        recipe.load(name, overrides)
