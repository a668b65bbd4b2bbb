"""From a folder of good photographs to a calibrated detector that the service loads."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom

from service.anomaly import ConformalScores
from service.inference.engine import OnnxEngine
from service.manifest import MANIFEST, ModelManifest, Selection
from service.registry import load
from service.repository import ModelRepository
from tests.conftest import DATA
from tests.training.conftest import COOKIES, run
from training import bundle, cli, data, detector, evidence, pipeline, recipe, scorer, variants
from training.architectures import Autoencoder, build
from training.calibration import SCORE, summary
from training.data import Parts, Split
from training.errors import DataError, RecipeError

SMALL = [
    "input.height=64",
    "input.width=48",
    "architecture.widths=[4, 8]",
    "architecture.code_channels=1",
    "training.epochs=4",
    "anomaly.folds=2",
    "anomaly.segmenter=[4, 8]",
]


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, told: list[str]) -> Path:
    """Of 24 photographs, too few to hold any out."""
    return run(recipe.load("photo-anomaly", SMALL), COOKIES, tmp_path_factory.mktemp("out"), told.append)


@pytest.fixture
def manifest(published: Path) -> ModelManifest:
    return ModelManifest.model_validate_json((published / MANIFEST).read_bytes())


def test_few_photographs_take_turns_to_calibrate_on(manifest: ModelManifest, told: list[str]) -> None:
    assert manifest.calibration is not None
    assert len(manifest.calibration.scores) == 24
    assert "each by a network that had not seen it" in manifest.calibration.method
    assert len(manifest.calibration.latent_deciles) == 9
    assert "fold 2 of 2: 12 images, and 12 held out" in told
    assert "all 24 images" in told


def test_the_service_loads_and_scores_with_it(published: Path, manifest: ModelManifest) -> None:
    (place,) = ModelRepository(published.parent.parent).places()
    model = load(place, ModelRepository(published.parent.parent).read(place), OnnxEngine("cpu"))
    with np.load(published / bundle.GOLDEN) as golden:
        found = model.run(SCORE, {"images": golden["images"]}, ["scores", "error_maps"])
        np.testing.assert_allclose(found["scores"], golden["scores"], rtol=1e-4, atol=1e-4)
    assert found["error_maps"].shape == (4, 64, 48)
    assert model.results("anomaly-score") == ("scores", "latent_distances")
    assert model.results("encode") == ("latents",)
    assert manifest.capabilities == ("encode", "decode", "reconstruct", "anomaly-score", "interpolate")


def test_the_manifest_says_how_the_score_was_chosen_and_what_it_finds(manifest: ModelManifest) -> None:
    assert manifest.selection is not None
    assert set(manifest.selection.score) <= set(recipe.load("photo-anomaly").anomaly.evidence)  # type: ignore[union-attr]
    assert any(name.startswith("pixel_auroc_") for name in manifest.selection.compared)
    figures = {"auroc_against_defects", "auroc_against_defects_cracked", "pixel_auroc", "aupro"}
    baselines = {f"{name}_auroc_against_defects" for name in ("pca", "nearest_neighbours")}
    assert figures | baselines <= set(manifest.metrics)
    assert all(0 <= manifest.metrics[name] <= 1 for name in figures | baselines)


def test_the_report_shows_where_defects_are_and_what_simple_methods_find(published: Path) -> None:
    report = published / bundle.REPORT
    assert (report / "heatmaps.png").is_file()
    assert (report / "roc.png").is_file()
    assert not (report / "samples.png").exists()
    assert "simple methods" in (report / "index.html").read_text()


def test_a_detector_can_be_calibrated_anew(published: Path, manifest: ModelManifest, tmp_path: Path) -> None:
    photographs = tmp_path / "good"
    photographs.mkdir()
    for copy in range(3):
        for path in (COOKIES / "train" / "good").iterdir():
            (photographs / f"{copy}-{path.name}").write_bytes(path.read_bytes())
    path = variants.recalibrate(manifest.name, photographs, published.parent.parent, lambda _: None)
    again = ModelManifest.model_validate_json((path / MANIFEST).read_bytes())
    assert again.calibration is not None
    assert len(again.calibration.scores) == 72
    assert "had not seen" not in again.calibration.method
    assert manifest.calibration is not None
    assert again.calibration.latent_deciles != manifest.calibration.latent_deciles


def test_it_is_not_calibrated_on_what_it_was_trained_on(published: Path, manifest: ModelManifest) -> None:
    with pytest.raises(DataError, match="was trained on the images in"):
        variants.recalibrate(manifest.name, COOKIES / "train" / "good", published.parent.parent, lambda _: None)


def test_an_interrupted_fold_goes_on(tmp_path: Path) -> None:
    """The run is stopped after the first fold; the second time that fold is not trained again."""
    config = recipe.load("photo-anomaly", [*SMALL, 'anomaly.evidence=["pixels"]'])

    def stop(text: str) -> None:
        if text.startswith("fold 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, COOKIES, tmp_path, stop)
    told: list[str] = []
    path = run(config, COOKIES, tmp_path, told.append)
    assert "going on after epoch 4 of autoencoder" in told
    kept = {path.name.partition(".")[0] for path in (tmp_path / "runs" / config.name).glob("*/*")}
    assert kept == {"metrics", "events"}
    whole = run(config, COOKIES, tmp_path / "whole")
    once, twice = (ModelManifest.model_validate_json((each / MANIFEST).read_bytes()) for each in (whole, path))
    assert once.calibration == twice.calibration
    for file in once.graphs.values():
        assert once.files[file] == twice.files[file]


def test_of_more_photographs_some_are_held_out(tmp_path: Path) -> None:
    told: list[str] = []
    held_out = [*SMALL, "data.calibration=8", "data.validation=4"]
    path = run(recipe.load("photo-anomaly", held_out), COOKIES, tmp_path, told.append)
    manifest = ModelManifest.model_validate_json((path / MANIFEST).read_bytes())
    assert manifest.training_data.images == {"training": 12, "validation": 4, "calibration": 8, "test": 6}
    assert manifest.calibration is not None
    assert len(manifest.calibration.scores) == 8
    assert {"pixel_auroc", "aupro"} <= set(manifest.metrics)
    assert "calibrated on 8 images: false positive rates from 0.11 on can be asked for" in told


def test_the_more_photographs_the_more_are_held_out_to_calibrate_on() -> None:
    config = recipe.load("photo-anomaly")
    found = {}
    for count in (149, 150, 209, 1000):
        parts = detector.part(config, Split(np.zeros((count, 1, 1, 1), dtype=np.uint8)))
        found[count] = len(parts.calibration), len(parts.validation)
    assert found == {149: (0, 0), 150: (50, 20), 209: (52, 20), 1000: (100, 50)}


@pytest.mark.parametrize("name", ["pixels", "latents", "activations", "scattering-neighbours"])
def test_cross_fitted_detectors_call_as_many_new_normal_images_strange_as_is_asked(
    name: evidence.EvidenceName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of digits, by evidence that is fitted to 60 of them; the mean of five choices of these."""
    monkeypatch.setattr(scorer, "choose", lambda *_: Selection(score=(name,), map=("pixels",), compared={}))
    config = recipe.load("one-class", [f'anomaly.evidence=["pixels", "{name}"]'])
    every = np.concatenate([data.load_training("mnist", DATA).images, data.load_test("mnist", DATA).images])

    def untrained(parts: Parts, _: str, fineness: int) -> Autoencoder:
        torch.manual_seed(0)
        network = build(config.architecture, config.input).eval()
        network.prepare(torch.from_numpy(parts.training.images), fineness)
        return network

    shares = []
    for seed in range(5):
        fitted, fresh = np.split(np.random.default_rng(seed).permutation(len(every)), [60])
        found = detector.cross_fit(config, Split(every[fitted]), untrained, lambda _: None)
        assert found.held_out is not None
        scores = detector.scored(found.network, found.scorer, every[fresh]).scores
        p_values = ConformalScores(summary(*found.held_out[:2], "any")).p_values(scores)
        shares.append((p_values <= 0.2).mean())
    error = np.sqrt(0.2 * 0.8 / 60 / len(shares))  # of what so few images to calibrate on leave to chance
    assert abs(np.mean(shares) - 0.2) < 3 * error


def test_more_folds_than_pairs_of_images_are_refused() -> None:
    config = recipe.load("photo-anomaly", ["anomaly.folds=13"])
    images = Split(np.zeros((24, 1, 1, 1), dtype=np.uint8))
    with pytest.raises(RecipeError, match="13 are too many for 24 images"):
        detector.cross_fit(config, images, lambda *_: pytest.fail("nothing is trained"), lambda _: None)


def test_one_class_against_the_others_and_its_false_alarms(tmp_path: Path) -> None:
    """Cross-fitted on few images: of unseen normal ones no more are called strange than the rate allows."""
    config = recipe.load(
        "one-class",
        ["data.calibration=1000", "data.only=1", "training.epochs=2", "training.batch_size=4", "anomaly.folds=2"],
    )
    path = run(config, DATA, tmp_path)
    manifest = ModelManifest.model_validate_json((path / MANIFEST).read_bytes())
    assert manifest.metrics["auroc_against_other_classes"] > 0.9
    given = pipeline.load(config, DATA, lambda _: None)
    scores = bundle.newest(tmp_path / "models", "one-class").graphs.chain(SCORE, images=given.dataset.test.images)
    assert manifest.calibration is not None
    p_values = ConformalScores(manifest.calibration).p_values(scores["scores"])
    alarms, count = int((p_values <= 0.2).sum()), len(p_values)
    assert binom.cdf(alarms, count, 0.2) > 0.005
    assert binom.sf(alarms - 1, count, 0.2) > 0.005


def test_the_folds_hold_every_image_out_once() -> None:
    images = Split(np.arange(23, dtype=np.uint8).reshape(23, 1, 1, 1))
    parts = list(detector.folds(images, 5, seed=0))
    held = np.concatenate([each.validation.images.ravel() for each in parts])
    assert sorted(held) == list(range(23))
    for each in parts:
        assert not {*each.training.images.ravel()} & {*each.validation.images.ravel()}
        assert len(each.training) + len(each.validation) == 23


@pytest.mark.parametrize(
    ("name", "overrides", "complaint"),
    [
        ("photo-anomaly", ["anomaly.folds=1"], "anomaly.folds"),
        ("photo-anomaly", ["anomaly.evidence=['pixel']"], "anomaly.evidence"),
        ("mnist-vae", ["anomaly.folds=2"], "anomaly needs a plain autoencoder"),
        ("photo-anomaly", ["corruption.sigma=0.1"], "anomaly needs a plain autoencoder"),
        ("mnist-stacked", ["anomaly.folds=2"], "kind principal or convolutional"),
        ("photo-anomaly", ["anomaly.evidence=['latents']"], "one that has a map: pixels, gradients, segm"),
        ("folder", ["anomaly.folds=2", "input.height=256", "input.width=256"], "principal, which reduces"),
        ("photo-anomaly", ["training.patience=3"], "training.patience unset"),
        ("mnist-undercomplete", ["data.licence=mine"], "are known"),
    ],
)
def test_recipes_that_make_no_detector_are_refused(name: str, overrides: list[str], complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        recipe.load(name, overrides)


def test_a_detector_is_not_halved(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = published.parent.parent
    assert cli.main(["halve", "photo-anomaly", "--data", str(COOKIES), "--models", str(models)]) == 1
    assert "is a detector" in capsys.readouterr().err


def test_too_few_steps_are_told_before_anything_is_trained(tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(RecipeError, match="would have"):
        run(recipe.load("photo-anomaly", [*SMALL, "training.epochs=1"]), COOKIES, tmp_path, told.append)
    assert [text for text in told if text.startswith("fold")] == ["fold 1 of 2: 12 images, and 12 held out"]
    assert not (tmp_path / "models" / "photo-anomaly").exists()
