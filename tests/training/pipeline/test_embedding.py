"""A bundle that only encodes: any colour photograph to a vector."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data
from starlette.testclient import TestClient

from bundle.manifest import MANIFEST, ModelManifest
from service.app import build_services, create_app
from service.settings import Settings
from tests.e2e.conftest import ROOT
from training import cli, recipe
from training.architectures.backbones.efficientnet_lite import WEIGHTS
from training.errors import RecipeError
from training.export.published import CARD, GOLDEN, load_newest
from training.pipeline import embedding
from training.pipeline.destinations import ModelsDirectory
from training.progress import silence
from training.recipe import EmbeddingRecipe


def of(*overrides: str) -> EmbeddingRecipe:
    chosen = recipe.load("photos", overrides)
    assert isinstance(chosen, EmbeddingRecipe)
    return chosen


def encoded(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = ModelsDirectory(tmp_path_factory.mktemp("models"))
    return embedding.run(of(), models, silence).directory


@pytest.fixture(scope="module")
def manifest(published: Path) -> ModelManifest:
    return ModelManifest.model_validate_json((published / MANIFEST).read_bytes())


def test_it_encodes_and_no_more(published: Path, manifest: ModelManifest) -> None:
    assert manifest.capabilities == ("encode",)
    assert manifest.graphs == {"encoder": "encoder.onnx"}
    # Another version of torch or onnx may export other bytes.
    assert manifest.encoder == load_newest(ROOT / "models", "photos").manifest.encoder
    assert (manifest.latent_dim, manifest.calibration, manifest.prior, manifest.metrics) == (
        320,
        None,
        None,
        {},
    )
    assert manifest.provenance.backbone == WEIGHTS
    card = (published / CARD).read_text()
    assert WEIGHTS.licence in card
    assert "Anomaly score" not in card
    with np.load(published / GOLDEN) as golden:
        assert {*golden.files} == {"images", "latents"}


def test_the_service_gives_vectors_of_a_length_of_one(
    published: Path, manifest: ModelManifest
) -> None:
    files = [
        ("images", (f"{name}.png", encoded(getattr(data, name)())))
        for name in ("astronaut", "coffee")
    ]
    with TestClient(
        create_app(build_services(Settings(models=published.parents[1], device="cpu")))
    ) as client:
        found = client.post("/v1/models/photos/encode", files=files)
        refused = client.post("/v1/models/photos/anomaly-score", files=files)
    latents = np.array(found.json()["latents"])
    assert latents.shape == (2, 320)
    np.testing.assert_allclose(np.linalg.norm(latents, axis=1), 1, atol=1e-4)
    assert latents[0] @ latents[1] < 0.9
    assert found.json()["encoder"] == manifest.encoder
    assert refused.status_code == 404


def test_a_depth_that_the_backbone_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"embedding\.depth: 12 is none of 4, 8, 16, 32"):
        embedding.run(of("embedding.depth=12"), ModelsDirectory(tmp_path), silence)


def test_a_model_without_training_is_neither_measured_nor_calibrated(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = ["--models", str(published.parents[1]), "--data", str(tmp_path)]
    for command, complaint in (
        ("evaluate", "it has no test images"),
        ("calibrate", "photos has no anomaly score"),
        ("convert-fp16", "photos has no decoder"),
    ):
        assert cli.main([command, "photos", *models]) == 1
        assert complaint in capsys.readouterr().err
