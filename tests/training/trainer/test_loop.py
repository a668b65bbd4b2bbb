from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.training.conftest import assert_equal, split, tiny, train
from training import recipe
from training.architectures import build
from training.data.splits import Split, TrainingSplits
from training.errors import DataError, RecipeError
from training.image_ops import to_float
from training.pipeline.plan import plan_stages
from training.trainer.checkpoint import Checkpoints, State

# One recipe of each family, of each optimiser, and one with every kind of stage.
RECIPES = {
    "mnist-undercomplete": [],
    "mnist-denoising": ["optimiser.kind=muon"],
    "mnist-vae": ["loss.samples=2"],
    "mnist-classifier": [],
    "classics/mnist-classifier": [
        "pretraining.epochs=1",
        "pretraining.learning_rate=0.01",
        "pretraining.batch_size=32",
    ],
    "classics/mnist-undercomplete": ["corruption.masking=0.2"],
    "classics/mnist-stacked": [],
    "mnist-stacked": ["optimiser.kind=sgd"],
    "studies/mnist-stacked-greedy": [
        "pretraining.epochs=1",
        "pretraining.batch_size=32",
        "training.patience=1",
    ],
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_recipe_and_seed_give_the_same_weights(
    name: str, images: Split, tmp_path: Path
) -> None:
    first, _ = train(tiny(name, *RECIPES[name]), images, tmp_path / "first")
    assert_equal(first, train(tiny(name, *RECIPES[name]), images, tmp_path / "second")[0])
    other, _ = train(tiny(name, *RECIPES[name], "seed=1"), images, tmp_path / "third")
    assert any(
        not torch.equal(tensor, other.state_dict()[key])
        for key, tensor in first.state_dict().items()
    )


@dataclass(frozen=True)
class MortalCheckpoints(Checkpoints):
    """Checkpoints of a run that is killed when the state after `epochs` epochs is saved."""

    epochs: int

    def save(self, name: str, state: State) -> None:
        super().save(name, state)
        if name == "last" and len(state["history"]) == self.epochs:
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_killed_run_resumes_to_the_same_weights(
    name: str, epoch: int, images: Split, tmp_path: Path
) -> None:
    recipe = tiny(name, *RECIPES[name], "training.epochs=3")
    uninterrupted, history = train(recipe, images, tmp_path / "uninterrupted")

    mortal = partial(MortalCheckpoints, epochs=epoch)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, images, tmp_path / "killed", open_checkpoints=mortal)
    resumed, resumed_history = train(recipe, images, tmp_path / "killed")
    assert_equal(resumed, uninterrupted)
    for row, same in zip(history, resumed_history, strict=True):
        timeless = {"images_per_second": 0, "seconds": 0}
        assert row | timeless == same | timeless


def test_training_stops_early_and_takes_the_best_weights(images: Split, tmp_path: Path) -> None:
    steady = [
        "training.epochs=40",
        "schedule.kind=constant",
        "training.ema=0",
        "optimiser.learning_rate=0.03",
    ]
    recipe = tiny("mnist-undercomplete", *steady, "training.patience=3")
    network, history = train(recipe, images, tmp_path)
    losses = [row["validation_loss"] for row in history]
    assert len(losses) < 40
    assert losses.index(min(losses)) == len(losses) - 4
    best = Checkpoints(tmp_path, recipe.fingerprint()).load("best-autoencoder")
    assert best is not None
    assert best["row"] == history[-4]
    assert torch.equal(
        network.state_dict()["encoder.0.0.weight"], best["network"]["network.encoder.0.0.weight"]
    )


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_the_shortest_runs_work_or_are_refused(epochs: int, images: Split, tmp_path: Path) -> None:
    recipe = tiny("mnist-undercomplete", f"training.epochs={epochs}", "training.batch_size=180")
    if epochs < 3:
        with pytest.raises(RecipeError, match=f"would have {epochs} steps"):
            train(recipe, images, tmp_path)
    else:
        assert train(recipe, images, tmp_path).autoencoder.latent_dim == 256


def test_a_batch_larger_than_the_data_is_refused(images: Split, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="autoencoder: 186 images are too few to train on: a batch takes 187"
    ):
        train(tiny("mnist-undercomplete", "training.batch_size=187"), images, tmp_path)


def test_an_impossible_later_stage_is_refused_at_the_start(images: Split, tmp_path: Path) -> None:
    recipe = tiny("mnist-classifier", "classifier.labels=20")
    with pytest.raises(
        DataError, match="classifier: 20 images are too few to train on: a batch takes 32"
    ):
        train(recipe, images, tmp_path)
    assert not list(tmp_path.iterdir())


def test_greedy_pretraining_is_of_the_layers_that_lose_something(images: Split) -> None:
    """Residual blocks begin as the identity."""
    for name, layers in (
        ("studies/mnist-stacked-greedy", [1, 4]),
        ("classics/mnist-stacked-greedy", [1, 2, 3, 4]),
    ):
        chosen = recipe.load_network(name)
        network = build(chosen.architecture, chosen.input)
        planned = plan_stages(chosen, network, TrainingSplits(images, images, images))
        assert [stage.name for stage in planned] == [
            *(f"layer-{layer}" for layer in layers),
            "autoencoder",
        ]


@pytest.mark.parametrize("objective", ["mnist-undercomplete", "mnist-classifier"])
def test_training_reduces_the_error(objective: str, tmp_path: Path, images: Split) -> None:
    recipe = tiny(objective, "training.epochs=20")
    network = train(recipe, images, tmp_path / "run").autoencoder
    unseen = to_float(torch.from_numpy(split(recipe, images).validation.images))
    with torch.no_grad():
        error = (network.decode(network.encode(unseen).mean) - unseen).square().mean()
    assert error < unseen.var() / (4 if objective == "mnist-undercomplete" else 1)
