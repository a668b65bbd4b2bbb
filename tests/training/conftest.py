from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from bundle.manifest import MANIFEST, ModelManifest
from tests.conftest import DATA
from training import recipe
from training.architectures import Autoencoder, build
from training.data import mnist, splits
from training.data.splits import Split
from training.pipeline import train as train_pipeline
from training.pipeline.plan import stages
from training.progress import Log
from training.recipe import Recipe
from training.trainer import loop
from training.trainer.checkpoint import Checkpoints
from training.trainer.distributed import Process
from training.trainer.tracking import Row

COOKIES = DATA / "cookies"
CPU = Process(torch.device("cpu"))
SMALL = {
    "mnist-undercomplete": [],
    "mnist-denoising": ["architecture.code_channels=1"],
    "mnist-vae": ["evaluation.importance_samples=50", "evaluation.images=3"],
    "mnist-classifier": ["architecture.latent_dim=4"],
    "mnist-latent2": [],
}


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Of torch and of the linear algebra: matrices are so small that further threads only wait for each other."""
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
    if recipe.load(name).architecture.kind == "convolutional":
        small += ["architecture.widths=[4, 8]", "architecture.blocks=1"]
    if recipe.load(name).architecture.kind == "residual-dense":
        small += ["architecture.width=16", "architecture.blocks=1"]
    if recipe.load(name).classifier:
        small += ["classifier.training.epochs=2", "classifier.training.batch_size=32"]
    return recipe.load(
        name, [*small, "evaluation.importance_samples=0", "mixture_components=2", *overrides]
    )


def run(
    recipe: Recipe, data: Path, directory: Path, tell: Callable[[str], None] = lambda _: None
) -> Path:
    path = train_pipeline.run(recipe, data, directory / "models", directory / "runs", tell)
    assert path is not None  # only the first of several processes publishes
    return path


@pytest.fixture(scope="session", params=SMALL)
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("out")
    recipe = tiny(request.param, *SMALL[request.param])
    return run(recipe, DATA, directory)


@pytest.fixture
def manifest(published: Path) -> ModelManifest:
    return ModelManifest.model_validate_json((published / MANIFEST).read_bytes())


def train(
    recipe: Recipe, images: Split, runs: Path, process: Process = CPU, tell: Log = lambda _: None
) -> tuple[Autoencoder, list[Row]]:
    """Train as the pipeline does; gives the network and the history."""
    torch.manual_seed(recipe.seed)
    network = build(recipe.architecture, recipe.input, 10 if recipe.classifier else 0)
    planned = stages(recipe, network, splits.split(images, recipe.data, recipe.seed))
    history = loop.train(
        planned, recipe.seed, Checkpoints(runs, recipe.fingerprint()), process, tell
    )
    return network, history


def assert_equal(a: Autoencoder, b: Autoencoder) -> None:
    for name, tensor in a.state_dict().items():
        np.testing.assert_array_equal(tensor, b.state_dict()[name], err_msg=name)
