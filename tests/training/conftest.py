import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from threadpoolctl import threadpool_limits
from torch import nn

from bundle.manifest import MANIFEST, ModelManifest
from tests.conftest import DATA
from training import recipe
from training.architectures import Autoencoder, Classifier, build
from training.data import mnist, splits
from training.data.splits import Split, TrainingSplits
from training.pipeline import train as train_pipeline
from training.pipeline.destinations import ModelsDirectory
from training.pipeline.plan import plan_stages
from training.progress import Log, silence
from training.recipe import Recipe
from training.trainer import loop
from training.trainer.checkpoint import Checkpoints
from training.trainer.distributed import Process
from training.trainer.tracking import EpochRow

COOKIES = DATA / "cookies"
CPU = Process(torch.device("cpu"))
SMALL = {
    "mnist-undercomplete": [],
    "mnist-denoising": ["architecture.code_channels=1"],
    "mnist-vae": [
        "evaluation.importance_samples=50",
        "evaluation.images=3",
        "mixture_components=0",
    ],
    "mnist-classifier": ["architecture.latent_dim=4"],
    "mnist-latent2": ["architecture.refinement=1"],
}


@pytest.fixture(scope="session", autouse=True)
def fast_exports(operators_parsed_once: None) -> None:
    """Speed up exports, because any test here may export."""


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Limit torch and linear algebra to one thread, because small matrices gain nothing by more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


@pytest.fixture
def images() -> Split:
    return mnist.load_training("mnist", DATA)


def tiny(name: str = "mnist-undercomplete", *overrides: str) -> Recipe:
    """A shipped recipe, made small enough for a test."""
    small = [
        "data.calibration=50",
        "data.validation=20",
        "training.epochs=2",
        "training.batch_size=32",
    ]
    shipped = recipe.load_network(name)
    if shipped.architecture.kind == "convolutional":
        small += ["architecture.widths=[4, 8]", "architecture.blocks=1"]
    if shipped.architecture.kind == "residual-dense":
        small += ["architecture.width=16", "architecture.blocks=1"]
    if shipped.classifier:
        small += ["classifier.training.epochs=2", "classifier.training.batch_size=32"]
    return recipe.load_network(
        name, [*small, "evaluation.importance_samples=0", "mixture_components=2", *overrides]
    )


def run(recipe: Recipe, data: Path, directory: Path, log: Log = silence) -> Path:
    models = ModelsDirectory(directory / "models")
    published = train_pipeline.run(recipe, data, models, directory / "runs", log)
    assert published is not None  # only the first of several processes publishes
    return published.directory


@pytest.fixture(scope="session", params=SMALL)
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("out")
    recipe = tiny(request.param, *SMALL[request.param])
    return run(recipe, DATA, directory)


@pytest.fixture
def manifest(published: Path) -> ModelManifest:
    return ModelManifest.model_validate_json((published / MANIFEST).read_bytes())


class Trained(NamedTuple):
    """A network, with its classifier if it has one, and a row of its history for each epoch."""

    network: Autoencoder | Classifier
    history: list[EpochRow]

    @property
    def autoencoder(self) -> Autoencoder:
        return self.network.autoencoder if isinstance(self.network, Classifier) else self.network


def split(recipe: Recipe, images: Split) -> TrainingSplits:
    return splits.split(images, recipe.data.calibration, recipe.data.validation, recipe.seed)


def train(
    recipe: Recipe,
    images: Split,
    runs: Path,
    process: Process = CPU,
    log: Log = silence,
    open_checkpoints: Callable[[Path, str], Checkpoints] = Checkpoints,
) -> Trained:
    """Train as the pipeline does."""
    torch.manual_seed(recipe.seed)
    autoencoder = build(recipe.architecture, recipe.input)
    network = Classifier(autoencoder, 10) if recipe.classifier else autoencoder
    planned = plan_stages(recipe, network, split(recipe, images))
    checkpoints = open_checkpoints(runs, recipe.fingerprint())
    return Trained(network, loop.train(planned, recipe.seed, checkpoints, process, log))


def assert_equal(a: nn.Module, b: nn.Module) -> None:
    for name, tensor in a.state_dict().items():
        np.testing.assert_array_equal(tensor, b.state_dict()[name], err_msg=name)


@pytest.fixture
def cookies(tmp_path: Path) -> Path:
    """A copy of the photographs, to change."""
    return Path(shutil.copytree(COOKIES, tmp_path / "cookies"))


def photographs(directory: Path, count: int) -> Path:
    """A folder of random photographs."""
    directory.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(count)
    for index in range(count):
        pixels = generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(directory / f"{index:02d}.png")
    return directory
