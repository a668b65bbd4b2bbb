"""Recipes become bundles on a few hundred real images; failures publish nothing."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import onnx
import pytest

from bundle.manifest import MANIFEST, MixturePrior, ModelManifest
from service.registry.repository import ModelRepository
from tests.bundles import open_bundle, write_bundle
from tests.conftest import DATA
from tests.training.conftest import run, tiny
from training import cli
from training.errors import ParityError
from training.export import parity
from training.export.published import CARD, PublishedBundle
from training.pipeline import publish
from training.pipeline.destinations import ModelsDirectory
from training.recipe import Recipe


def read_manifest(bundle: Path) -> ModelManifest:
    return ModelManifest.model_validate_json((bundle / MANIFEST).read_bytes())


def test_the_service_takes_the_bundle(published: Path) -> None:
    repository = ModelRepository(published.parent.parent)
    (location,) = repository.locations()
    manifest = repository.read(location)
    model = open_bundle(repository, location)
    assert "sample" in model.manifest.capabilities
    assert ("denoise" in model.manifest.capabilities) == (manifest.name == "mnist-denoising")
    assert ("classify" in model.manifest.capabilities) == (manifest.name == "mnist-classifier")
    assert manifest.classes == (tuple("0123456789") if manifest.name == "mnist-classifier" else ())
    assert isinstance(manifest.prior, MixturePrior) == (manifest.name != "mnist-vae")


def test_the_manifest_records_how_the_bundle_was_made(manifest: ModelManifest) -> None:
    provenance = manifest.provenance
    assert Recipe.model_validate(provenance.recipe).training.epochs == 2
    assert provenance.libraries["torch"].startswith("2.")
    assert max(provenance.parity.values()) <= 1
    assert manifest.training_data.images == {
        "training": 186,
        "validation": 20,
        "calibration": 50,
        "test": 128,
    }
    files = {
        f"{part}-{kind}-ubyte.gz"
        for part in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    }
    assert set(manifest.training_data.sha256) == files
    assert manifest.calibration is not None
    assert len(manifest.calibration.scores) == 50
    assert len(manifest.calibration.latent_deciles) == 9
    assert {"mse", "auroc_against_fashion-mnist", "false_positive_rate_at_0.05"} <= set(
        manifest.metrics
    )
    assert ({"psnr", "ssim", "pca_psnr"} <= set(manifest.metrics)) == (
        manifest.name == "mnist-denoising"
    )
    assert ({"elbo", "nll"} <= set(manifest.metrics)) == (manifest.name == "mnist-vae")
    assert ({"accuracy", "pca_accuracy"} <= set(manifest.metrics)) == (
        manifest.name == "mnist-classifier"
    )
    assert provenance.device is not None
    assert provenance.device.startswith("CPU")


def test_an_older_service_reads_the_manifest(published: Path) -> None:
    """Later entries with their default value are omitted, in the recipe too."""
    document = json.loads((published / MANIFEST).read_text())
    assert "precision" not in document
    for given in (document["input"], document["provenance"]["recipe"]["input"]):
        assert given == {"height": 28, "width": 28, "channels": 1, "resample": "bilinear"}


def test_the_card_shows_the_test_metrics(published: Path, manifest: ModelManifest) -> None:
    card = (published / CARD).read_text()
    assert manifest.architecture in card
    for name, value in manifest.metrics.items():
        assert f"| {name} | {value:.6g} |" in card


def test_a_classifier_without_reconstruction_promises_none(tmp_path: Path) -> None:
    path = run(tiny("classics/mnist-classifier"), DATA, tmp_path)
    assert read_manifest(path).capabilities == ("encode", "classify")


def test_graphs_hold_no_paths_of_the_machine(published: Path) -> None:
    for path in published.glob("*.onnx"):
        content = path.read_bytes()
        for trace in (b"site-packages", b"File ", str(Path.cwd()).encode(), b"stack_trace"):
            assert trace not in content, f"{path.name} holds {trace!r}"
        graph = onnx.load(path).graph
        for value in (*graph.input, *graph.output):
            assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.fixture(scope="module")
def second_version(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, str]:
    """A bundle published by the command as version 2, without outliers, and what was printed."""
    directory = tmp_path_factory.mktemp("second")
    write_bundle(directory / "models", "mine", 1)
    command = ["train", "mnist-undercomplete", "--data", str(DATA / "mnist"), "--name", "mine"]
    command += ["--models", str(directory / "models"), "--runs", str(directory / "runs")]
    for entry in (
        "data.calibration=50",
        "data.validation=20",
        "training.epochs=1",
        "training.batch_size=32",
        "architecture.widths=[8]",
        "mixture_components=1",
    ):
        command += ["--set", entry]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert cli.main(command) == 0
    return directory / "models" / "mine" / "2", printed.getvalue()


def test_training_again_publishes_the_next_version_and_keeps_only_the_tracked_metrics(
    second_version: tuple[Path, str],
) -> None:
    published, _ = second_version
    assert sorted(path.name for path in published.parent.iterdir()) == ["1", "2"]
    assert read_manifest(published).version == 2
    (kept,) = (published.parents[2] / "runs" / "mine").iterdir()
    assert {path.name.split(".")[0] for path in kept.iterdir()} == {"metrics", "events"}


def test_without_outliers_their_metric_is_skipped_and_logged(
    second_version: tuple[Path, str],
) -> None:
    published, printed = second_version
    assert not any(name.startswith("auroc") for name in read_manifest(published).metrics)
    assert "there is no folder fashion-mnist" in printed


def test_nothing_is_published_if_onnx_runtime_differs_from_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "FLOAT_TOLERANCE", -1.0)
    recipe = tiny("mnist-undercomplete", "architecture.widths=[8]", "training.epochs=1")
    with pytest.raises(ParityError, match="latents differs from torch"):
        run(recipe, DATA, tmp_path)
    assert not list((tmp_path / "models").iterdir())
    assert len(list((tmp_path / "runs" / "mnist-undercomplete").glob("*/last.json"))) == 1


def test_two_runs_that_publish_at_once_get_two_versions(tmp_path: Path) -> None:
    draft = read_manifest(write_bundle(tmp_path / "drafts", "mine"))
    models = ModelsDirectory(tmp_path)
    with models.open_staging("mine") as first, models.open_staging("mine") as second:
        for staging in (first, second):
            for file in draft.files:
                shutil.copy(tmp_path / "drafts" / "mine" / "1" / file, staging)

        def overtaken(model: PublishedBundle) -> None:
            (first / "version").write_text(str(model.manifest.version))
            if model.manifest.version == 1:
                assert publish.publish(models, second, draft).directory == tmp_path / "mine" / "1"

        published = publish.publish(models, first, draft, overtaken)
    assert published.directory == tmp_path / "mine" / "2"
    assert (tmp_path / "mine" / "2" / "version").read_text() == "2"
    versions = {path.name: read_manifest(path).version for path in (tmp_path / "mine").iterdir()}
    assert versions == {"1": 1, "2": 2}
