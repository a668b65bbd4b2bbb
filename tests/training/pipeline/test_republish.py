"""Bundles made of published ones: converted to fp16, and calibrated again."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from bundle.conformal import ConformalScores
from bundle.manifest import EXAMPLES, MANIFEST, ModelManifest
from bundle.terminal import name_module
from service.registry.repository import ModelRepository
from tests.bundles import open_bundle
from tests.conftest import DATA, MODELS
from tests.training.conftest import COOKIES
from training import cli
from training.data.mnist import load_test
from training.errors import DataError, ParityError, RecipeError
from training.export import fp16
from training.export.published import CARD, GOLDEN, REPORT, PublishedBundle
from training.pipeline import republish


def test_a_model_can_be_published_again_in_fp16(
    published: Path, manifest: ModelManifest, tmp_path: Path
) -> None:
    if manifest.name == "mnist-latent2":
        pytest.skip("float16 is too coarse for a code of two numbers")
    shutil.copytree(published.parent, tmp_path / manifest.name)
    path = republish.convert_to_fp16(
        manifest.name, "half", DATA, tmp_path, lambda _: None
    ).directory
    repository = ModelRepository(tmp_path)
    location = next(each for each in repository.locations() if each.name == "half")
    converted = repository.read(location)
    assert (converted.precision, manifest.precision) == ("float16", "float32")
    assert converted.metrics["score_change_largest"] < 0.05
    assert {name for name in converted.metrics if "change" not in name} == set(manifest.metrics)
    assert converted.provenance.recipe == manifest.provenance.recipe
    assert converted.provenance.converted_from == f"{manifest.name}/1"
    assert "computes in float16" in (path / CARD).read_text()
    kinds = {node.op_type for node in onnx.load(path / converted.graphs["encoder"]).graph.node}
    assert kinds - {"Cast"}  # it computes
    for tensor in onnx.load(path / converted.graphs["encoder"]).graph.initializer:
        assert tensor.data_type != onnx.TensorProto.FLOAT, tensor.name

    with np.load(published / GOLDEN) as golden:
        model = open_bundle(repository, location)
        found = model.chain.run(
            model.graphs["anomaly-score"], {"images": golden["images"]}, ["scores"]
        )
        assert found["scores"] == pytest.approx(golden["scores"], rel=0.05)


def test_an_fp16_model_is_not_converted_again_and_has_a_name_of_its_own(
    published: Path, tmp_path: Path
) -> None:
    shutil.copytree(published, tmp_path / "half" / "1")
    document = json.loads((published / MANIFEST).read_text()) | {
        "name": "half",
        "precision": "float16",
    }
    (tmp_path / "half" / "1" / MANIFEST).write_text(json.dumps(document))
    for name, new_name, complaint in (
        ("half", "quarter", "half computes in float16 already"),
        ("half", "half", "--name half would replace half: the fp16 model needs another name"),
        ("half", "../outside", "cannot be a model's name"),
    ):
        with pytest.raises(RecipeError, match=complaint):
            republish.convert_to_fp16(name, new_name, DATA, tmp_path, lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["half"]


def test_a_model_that_fp16_changes_too_much_is_refused(published: Path, tmp_path: Path) -> None:
    (tmp_path / "rounded").mkdir()
    images = np.zeros((2, 28, 28, 1), np.uint8)
    with pytest.raises(ParityError, match=r"differs from float32 by .*; at most 0\.0 is allowed"):
        fp16.write(
            PublishedBundle(published), images, tmp_path, tmp_path / "rounded", tolerance=0.0
        )


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Sixty digits as large pictures, and a file that is no image."""
    folder = tmp_path / "digits"
    folder.mkdir()
    for index, digit in enumerate(load_test("mnist", DATA).images[:60]):
        Image.fromarray(digit[..., 0]).resize((56, 56)).convert("RGB").save(
            folder / f"{index:02d}.png"
        )
    (folder / "60.png").write_bytes(b"none")
    return folder


def test_a_model_is_calibrated_again_and_is_the_same_model(
    published: Path,
    manifest: ModelManifest,
    tmp_path: Path,
    digits: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = tmp_path / "models"
    shutil.copytree(published.parent, models / manifest.name)
    assert (
        cli.main(["calibrate", manifest.name, "--data", str(digits), "--models", str(models)]) == 0
    )
    printed, next_steps = capsys.readouterr()
    assert printed.endswith(f"\npublished {models / manifest.name / '2'}\n")
    assert next_steps == f"serve it: {name_module('service')} serve --models {models}\n"
    assert "60.png: the bytes are not an image" in printed
    assert "calibrated on 60 images; the minimum false_positive_rate is 0.017" in printed
    repository = ModelRepository(models)
    (_, location) = repository.locations()
    again = repository.read(location)
    assert location.version == 2
    assert manifest.calibration
    assert again.calibration
    assert len(again.calibration.scores) == 60
    assert again.calibration.scores != manifest.calibration.scores
    assert {file: again.files[file] for file in manifest.files if file != CARD} == {
        file: digest for file, digest in manifest.files.items() if file != CARD
    }
    made = again.provenance.recalibrated
    assert made
    assert (made.source, made.images) == (f"{manifest.name}/1", 60)
    assert again.provenance.recipe == manifest.provenance.recipe
    assert not any("false_positive" in name for name in again.metrics)
    assert again.metrics["mse"] == manifest.metrics["mse"]
    card = (models / manifest.name / "2" / CARD).read_text()
    assert f"calibrated on 60 other images, after training ({manifest.name}/1 was not)" in card
    for picture in ("index.html", "reconstructions.png", "scores.png"):
        assert (models / manifest.name / "2" / REPORT / picture).is_file()
    calibration = open_bundle(repository, location).manifest.calibration
    assert calibration is not None
    assert ConformalScores(calibration).threshold(0.02) is not None


def test_too_few_images_to_calibrate_on_are_refused(published: Path, digits: Path) -> None:
    for path in sorted(digits.iterdir())[40:]:
        path.unlink()
    models = published.parent.parent
    with pytest.raises(DataError, match="holds 40 images; at least 50 are needed"):
        republish.recalibrate(published.parent.name, digits, models, lambda _: None)
    assert [path.name for path in published.parent.iterdir()] == ["1"]


def test_a_folder_with_test_images_is_not_calibrated_on(published: Path, digits: Path) -> None:
    (digits / "test" / "scratch").mkdir(parents=True)
    with pytest.raises(DataError, match=r"name a folder of normal images alone, as .*test/good"):
        republish.recalibrate(
            published.parent.name, digits, published.parent.parent, lambda _: None
        )


def test_examples_are_added_by_a_version_of_its_own(
    published: Path, manifest: ModelManifest, tmp_path: Path
) -> None:
    shutil.copytree(published.parent, tmp_path / manifest.name)
    (tmp_path / manifest.name / "1" / EXAMPLES).unlink(missing_ok=True)
    path = republish.add_examples(manifest.name, DATA, tmp_path, lambda _: None).directory
    added = ModelManifest.model_validate_json((path / MANIFEST).read_bytes())
    assert (path.name, added.has_examples, added.encoder) == ("2", True, manifest.encoder)
    assert added.calibration == manifest.calibration


def test_a_network_of_public_images_has_examples(manifest: ModelManifest) -> None:
    assert manifest.has_examples


def test_examples_of_photographs_need_a_folder(tmp_path: Path) -> None:
    shutil.copytree(MODELS / "photos", tmp_path / "photos")
    with pytest.raises(DataError, match="name a folder of images by --data"):
        republish.add_examples("photos", None, tmp_path, lambda _: None)
    path = republish.add_examples("photos", COOKIES, tmp_path, lambda _: None).directory
    assert ModelManifest.model_validate_json((path / MANIFEST).read_bytes()).has_examples
