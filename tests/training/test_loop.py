from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.conftest import tiny
from training import loop
from training.architectures import Autoencoder
from training.checkpoint import Checkpoint
from training.errors import CheckpointError, DataError, DivergedError, RecipeError
from training.recipe import Recipe

CPU = torch.device("cpu")


@pytest.fixture
def images(data: Path) -> np.ndarray:
    from training.data import load

    return load("mnist", "train", data).images


def train(recipe: Recipe, images: np.ndarray, path: Path) -> Autoencoder:
    return loop.train(recipe, loop.split(images, recipe), Checkpoint(path, recipe.fingerprint()), CPU, lambda _: None)


def weights(model: Autoencoder) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def assert_equal(a: Autoencoder, b: Autoencoder) -> None:
    for name, tensor in weights(a).items():
        np.testing.assert_array_equal(tensor, weights(b)[name], err_msg=name)


RECIPES = {
    "mnist-undercomplete": [],
    "mnist-denoising": ["architecture.widths=[4, 8]", "architecture.blocks=1"],
    "mnist-vae": ["architecture.widths=[4, 8]"],
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_recipe_and_seed_give_the_same_weights(name: str, images: np.ndarray, tmp_path: Path) -> None:
    recipe = tiny(name, *RECIPES[name])
    first = train(recipe, images, tmp_path / "first")
    assert_equal(first, train(recipe, images, tmp_path / "second"))
    other = train(tiny(name, *RECIPES[name], "seed=1"), images, tmp_path / "third")
    assert any(not np.array_equal(tensor, weights(other)[key]) for key, tensor in weights(first).items())


@pytest.mark.parametrize("name", RECIPES)
def test_a_killed_run_resumes_to_the_same_weights(
    name: str, images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny(name, *RECIPES[name], "optimiser.epochs=3")
    whole = train(recipe, images, tmp_path / "whole")

    save = Checkpoint.save

    def save_and_die(self: Checkpoint, state: dict[str, object]) -> None:
        save(self, state)
        if state["epoch"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, images, tmp_path / "killed")
    assert_equal(train(recipe, images, tmp_path / "killed"), whole)


def test_a_checkpoint_of_another_recipe_is_not_taken(images: np.ndarray, tmp_path: Path) -> None:
    train(tiny(), images, tmp_path)
    assert Checkpoint(tmp_path, tiny().fingerprint()).load() is not None
    assert Checkpoint(tmp_path, tiny("mnist-undercomplete", "seed=5").fingerprint()).load() is None


@pytest.mark.parametrize("content", [b"", b"junk", b"PK" + bytes(200)])
def test_a_damaged_checkpoint_is_said_to_be_so(tmp_path: Path, content: bytes) -> None:
    checkpoint = Checkpoint(tmp_path, tiny().fingerprint())
    checkpoint.path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is damaged.*delete it to start afresh"):
        checkpoint.load()


def test_a_checkpoint_of_other_code_is_said_to_be_so(images: np.ndarray, tmp_path: Path) -> None:
    train(tiny(), images, tmp_path)
    checkpoint = Checkpoint(tmp_path, tiny().fingerprint())
    state = checkpoint.load()
    assert state is not None
    checkpoint.save(state | {"model": {}})
    with pytest.raises(CheckpointError, match="is of other code"):
        train(tiny(), images, tmp_path)


def test_a_checkpoint_that_cannot_be_written_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot be written"):
        Checkpoint(tmp_path / "file" / "runs", "x").save({})


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_the_shortest_runs_work_or_are_refused(epochs: int, images: np.ndarray, tmp_path: Path) -> None:
    recipe = tiny("mnist-undercomplete", f"optimiser.epochs={epochs}", "optimiser.batch_size=180")
    if epochs < 3:
        with pytest.raises(RecipeError, match=f"would have {epochs} steps"):
            train(recipe, images, tmp_path)
    else:
        assert train(recipe, images, tmp_path).latent_dim == 256


def test_the_parts_do_not_overlap_and_hold_every_image() -> None:
    numbered = np.arange(256, dtype=np.uint8).reshape(-1, 1, 1, 1)
    parts = loop.split(numbered, tiny())
    assert (len(parts.training), len(parts.validation), len(parts.calibration)) == (186, 20, 50)
    together = np.concatenate([parts.training, parts.validation, parts.calibration]).ravel()
    assert sorted(together.tolist()) == list(range(256))


def test_too_few_images_are_refused(images: np.ndarray) -> None:
    with pytest.raises(DataError, match="100 images are too few: 70 are held out"):
        loop.split(images[:100], tiny())


def test_a_loss_that_is_no_number_ends_the_training(images: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"lower optimiser\.learning_rate"):
        train(tiny("mnist-undercomplete", "optimiser.learning_rate=1e30"), images, tmp_path / "run")


def test_corruption_keeps_images_between_0_and_1() -> None:
    clean = torch.rand(8, 1, 28, 28)
    noisy = loop.corrupt(clean, 0.5, torch.Generator().manual_seed(0))
    assert 0 <= noisy.min() < noisy.max() <= 1
    assert not torch.equal(noisy, clean)
    assert loop.corrupt(clean, 0.0, torch.Generator()) is clean


def test_training_reduces_the_error(tmp_path: Path, images: np.ndarray) -> None:
    recipe = tiny("mnist-undercomplete", "optimiser.epochs=20")
    model = train(recipe, images, tmp_path / "run")
    unseen = loop.to_float(torch.from_numpy(loop.split(images, recipe).validation))
    with torch.no_grad():
        error = (model.decode(model.encode(unseen).mean) - unseen).square().mean()
    assert error < unseen.var() / 4
