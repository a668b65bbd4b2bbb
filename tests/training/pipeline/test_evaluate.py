import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundle.manifest import MANIFEST, ModelManifest
from tests.conftest import DATA
from tests.idx import write_idx
from tests.training.conftest import run
from training import cli, recipe
from training.errors import DataError, RecipeError
from training.pipeline import evaluate


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
