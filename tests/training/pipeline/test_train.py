"""Recipes become bundles on a few hundred real images; failures publish nothing."""

import contextlib
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from bundle.manifest import MANIFEST, MixturePrior, ModelManifest
from service.inference.engine import OnnxEngine
from service.registry.loader import Loader
from service.registry.repository import ModelRepository
from tests.bundles import write_bundle
from tests.conftest import DATA
from tests.idx import write_idx
from tests.training.conftest import run, tiny, train
from training import cli, recipe
from training.architectures import Posterior
from training.data.mnist import load_test, load_training
from training.data.splits import Split
from training.errors import DataError, ParityError, RecipeError
from training.evaluation import baselines, graph_metrics
from training.export import parity
from training.export.published import CARD, REPORT, PublishedBundle, load_newest
from training.pipeline import evaluate, publish
from training.recipe import Recipe
from training.trainer.losses import importance_weighted_loss


def read_manifest(bundle: Path) -> ModelManifest:
    return ModelManifest.model_validate_json((bundle / MANIFEST).read_bytes())


def test_the_service_takes_the_bundle(published: Path) -> None:
    repository = ModelRepository(published.parent.parent)
    (location,) = repository.locations()
    manifest = repository.read(location)
    model = Loader(repository, OnnxEngine("cpu")).load(location)
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


def test_a_published_model_can_be_measured_again(
    published: Path, manifest: ModelManifest, capsys: pytest.CaptureFixture[str]
) -> None:
    again = evaluate.measure(manifest.name, DATA, published.parent.parent, lambda _: None)
    assert again == pytest.approx(manifest.metrics)
    assert cli.main(["evaluate", "nothing", "--models", str(published.parent.parent)]) == 1
    assert "there is no bundle of nothing" in capsys.readouterr().err


def test_a_bundle_with_another_recipe_format_is_refused(published: Path, tmp_path: Path) -> None:
    home = tmp_path / "old" / "1"
    shutil.copytree(published, home)
    manifest = json.loads((home / MANIFEST).read_text())
    manifest["name"] = "old"
    manifest["provenance"]["recipe"]["optimiser"]["epochs"] = 3
    (home / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(
        RecipeError,
        match="old was trained by a version whose recipes had other entries; train it again",
    ):
        evaluate.measure("old", DATA, tmp_path, lambda _: None)


def test_other_data_than_the_bundles_are_refused(
    published: Path, manifest: ModelManifest, tmp_path: Path
) -> None:
    shutil.copytree(DATA / "mnist", tmp_path / "mnist")
    write_idx(tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz", np.zeros((128, 28, 28), np.uint8))
    with pytest.raises(
        DataError, match=f"the files are not those that {manifest.name} was trained with"
    ):
        evaluate.measure(manifest.name, tmp_path, published.parent.parent, lambda _: None)


def test_a_folder_that_was_renamed_is_the_same_data(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for index in range(40):
        picture = generator.integers(0, 256, (28, 28), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "photos" / f"{index}.png")
    held_out = ["data.test=4", "data.calibration=8", "data.validation=4"]
    size = [
        "input.height=16",
        "input.width=16",
        "input.channels=1",
        "architecture.widths=[4]",
        "training.epochs=1",
    ]
    chosen = recipe.load_network("folder", [*held_out, *size, "training.batch_size=8"])
    run(chosen, tmp_path / "photos", tmp_path)
    (tmp_path / "photos").rename(tmp_path / "pictures")
    models = tmp_path / "models"
    assert evaluate.measure("folder", tmp_path / "pictures", models, lambda _: None)["mse"] > 0


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
    with (
        publish.open_staging(tmp_path, "mine") as first,
        publish.open_staging(tmp_path, "mine") as second,
    ):
        for staging in (first, second):
            for file in draft.files:
                shutil.copy(tmp_path / "drafts" / "mine" / "1" / file, staging)

        def overtaken(model: PublishedBundle) -> None:
            (first / "version").write_text(str(model.manifest.version))
            if model.manifest.version == 1:
                assert publish.publish(second, draft) == tmp_path / "mine" / "1"

        assert publish.publish(first, draft, overtaken) == tmp_path / "mine" / "2"
    assert (tmp_path / "mine" / "2" / "version").read_text() == "2"
    versions = {path.name: read_manifest(path).version for path in (tmp_path / "mine").iterdir()}
    assert versions == {"1": 1, "2": 2}


class Terminal:
    """A terminal of its own for stderr, which shows the progress bar."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        termios.tcsetwinsize(self.theirs, (24, 200))

    def wait_for(self, text: str) -> None:
        """Read until the text is shown. Raises OSError if all writers end before."""
        shown = ""
        while text not in shown:
            shown += os.read(self._ours, 1000).decode()

    def close(self) -> None:
        os.close(self._ours)


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Terminal]]:
    """A training that has come to its third epoch, and its terminal."""
    command = [
        sys.executable,
        "-m",
        "training",
        "train",
        "mnist-undercomplete",
        "--data",
        str(DATA),
    ]
    command += ["--models", str(tmp_path / "models"), "--runs", str(tmp_path / "runs")]
    for entry in (
        "data.calibration=50",
        "data.validation=20",
        "training.batch_size=32",
        "mixture_components=1",
    ):
        command += ["--set", entry]
    command += ["--set", "training.epochs=2000"]
    terminal = Terminal()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=terminal.theirs) as process:
        os.close(terminal.theirs)
        terminal.wait_for("epoch=3")
        yield process, terminal
        process.kill()
    terminal.close()


def test_a_killed_command_leaves_a_checkpoint_and_publishes_nothing(
    endless: tuple[subprocess.Popen[bytes], Terminal], tmp_path: Path
) -> None:
    process, _ = endless
    process.kill()
    process.wait()
    assert not list((tmp_path / "models").iterdir())
    (checkpoint,) = (tmp_path / "runs" / "mnist-undercomplete").glob("*/last.json")
    assert 2 <= json.loads(checkpoint.read_text())["state"]["run"]["epoch"] < 2000


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_command_says_how_to_resume(
    endless: tuple[subprocess.Popen[bytes], Terminal], number: signal.Signals, status: int
) -> None:
    process, terminal = endless
    process.send_signal(number)
    terminal.wait_for("interrupted; rerun the same command to resume")
    assert process.wait() == status


def test_piped_output_has_a_line_for_each_stage(
    tmp_path: Path, images: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny("mnist-classifier"), images, tmp_path, log=print)
    shown = capsys.readouterr()
    assert "%|" not in shown.err
    for stage in ("autoencoder", "classifier"):
        assert (
            len(
                re.findall(
                    rf"^{stage}: 2 epochs in \d+ s, validation loss \d", shown.out, re.MULTILINE
                )
            )
            == 1
        )


def test_errors_are_printed_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "mnist-vea"]) == 1
    assert cli.main(["train", "mnist-vae", "--data", str(tmp_path)]) == 1
    assert cli.main(["train", "mnist-denoising", "--set", "architecture.widths=[4,4,4]"]) == 1
    assert cli.main(["train", "mnist-vae", "--data", str(DATA)]) == 1
    (tmp_path / "file").touch()
    small = [
        word for entry in ("data.calibration=50", "data.validation=20") for word in ("--set", entry)
    ]
    assert (
        cli.main(
            ["train", "mnist-vae", "--data", str(DATA), "--models", str(tmp_path / "file"), *small]
        )
        == 1
    )
    printed = capsys.readouterr().err
    assert "did you mean 'mnist-vae'" in printed
    assert "there is no train-images-idx3-ubyte.gz" in printed
    assert "architecture: 28x28 cannot be halved 3 times" in printed
    assert "256 images to train on are too few" in printed
    assert "File exists" in printed


def test_recipes_are_listed_without_torch() -> None:
    code = (
        "import sys; from training import cli; cli.main(['recipes']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "mnist-denoising" in done.stdout
    assert done.stdout.endswith("False\n")


def test_pca_error_is_that_of_the_best_linear_code() -> None:
    images = load_training("mnist", DATA).images
    flat = images.reshape(len(images), -1) / 255.0
    centred = flat - flat.mean(axis=0)
    singular = np.linalg.svd(centred, compute_uv=False)
    expected = np.square(singular[16:]).sum() / centred.size
    pca = baselines.PrincipalComponents(images, 16, seed=0)
    assert pca.measure_error(images) == pytest.approx(expected, rel=0.01)


def test_the_likelihood_is_the_one_that_torch_finds(
    published: Path, manifest: ModelManifest
) -> None:
    """Importance sampling agrees with the training's bound, which is another implementation."""
    if manifest.name != "mnist-vae":
        pytest.skip("this model has no likelihood")
    images = graph_metrics.binarise(load_test("mnist", DATA).images[:4])
    graphs = load_newest(published.parent.parent, manifest.name).graphs
    config = Recipe.model_validate(manifest.provenance.recipe).loss
    found = graph_metrics.negative_log_likelihood(graphs, images, config, samples=400)

    encoded = graphs.chain(["encoder"], images=images)
    posterior = Posterior(
        *(torch.from_numpy(encoded[name]) for name in ("latents", "log_variances"))
    )
    noise = torch.randn(400, 4, manifest.latent_dim, generator=torch.Generator().manual_seed(1))
    latents = posterior.sample(noise).flatten(0, 1).numpy()
    raw = torch.from_numpy(graphs.chain(["decoder"], latents=latents)["logits"]).view(
        400, 4, 28, 28, 1
    )
    clean = torch.from_numpy(images).float() / 255
    expected = 784 * importance_weighted_loss(raw, clean, posterior, noise, config).mean().item()
    assert found == pytest.approx(expected, rel=0.01)
    assert -graph_metrics.elbo(graphs, images, config) >= found - 1


def test_the_report_is_one_page_and_its_pictures(published: Path, manifest: ModelManifest) -> None:
    report = published / REPORT
    pictures = {path.stem for path in report.glob("*.png")}
    assert {
        "losses",
        "reconstructions",
        "latents",
        "samples",
        "interpolations",
        "scores",
    } <= pictures
    assert ("denoised" in pictures) == (manifest.name == "mnist-denoising")
    assert ("grid" in pictures) == (manifest.name == "mnist-latent2")
    assert ("confusion" in pictures) == (manifest.name == "mnist-classifier")
    page = (report / "index.html").read_text()
    assert page.count("data:image/png;base64,") == len(pictures)
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    for name, value in manifest.metrics.items():
        assert f"<td>{name}</td><td>{value:.6g}</td>" in page
    assert f"]({REPORT}/index.html)" in (published / CARD).read_text()


def test_the_report_can_be_drawn_again(
    published: Path, manifest: ModelManifest, tmp_path: Path
) -> None:
    command = [
        "report",
        manifest.name,
        "--data",
        str(DATA),
        "--models",
        str(published.parent.parent),
    ]
    assert cli.main([*command, "--output", str(tmp_path)]) == 0
    for path in (published / REPORT).glob("*.png"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
