"""Checks that stop a failing training run and say why."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.conftest import tiny, train
from training.data.splits import Split
from training.errors import CollapsedError, DataError, DivergedError
from training.trainer import collapse


def test_a_loss_that_is_no_number_ends_the_training(images: Split, tmp_path: Path) -> None:
    with pytest.raises(
        DivergedError, match=r"the loss is nan in epoch 1 of autoencoder; lower the learning_rate"
    ):
        train(tiny("mnist-undercomplete", "optimiser.learning_rate=1e30"), images, tmp_path / "run")


def test_a_collapse_that_lasts_ends_the_training(images: Split, tmp_path: Path) -> None:
    recipe = tiny("mnist-vae", "loss.beta=1000", "training.epochs=30")
    with pytest.raises(
        CollapsedError, match=r"all 32 latent units are dead, for 5 epochs.*lower .*loss\.beta"
    ):
        train(recipe, images, tmp_path)


def test_early_stopping_does_not_save_a_collapse(images: Split, tmp_path: Path) -> None:
    recipe = tiny(
        "mnist-vae", "loss.beta=1000", "training.epochs=30", "training.patience=1", "training.ema=0"
    )
    with pytest.raises(CollapsedError, match="all 32 latent units are dead"):
        train(recipe, images, tmp_path)


def test_a_run_that_is_too_short_for_the_guard_warns_that_it_ended_in_a_collapse(
    images: Split, tmp_path: Path
) -> None:
    logged: list[str] = []
    train(tiny("mnist-vae", "loss.beta=1000"), images, tmp_path, log=logged.append)
    assert logged[1:] == ["warning: autoencoder ended in a collapse: all 32 latent units are dead"]


def test_a_collapse_differs_from_a_trained_network() -> None:
    latents, outputs = torch.rand(8, 3), torch.rand(8, 1, 4, 4)
    assert collapse.find_collapse(0, latents, outputs) is None
    assert collapse.count_dead_units(latents, variational=False) == 0
    assert collapse.count_dead_units(torch.ones(8, 3), variational=False) == 3
    assert collapse.count_dead_units(0.01 * latents, variational=True) == 3
    assert collapse.find_collapse(3, latents, outputs) == "all 3 latent units are dead"
    assert (
        collapse.find_collapse(0, latents, torch.ones(8, 1, 4, 4))
        == "every image has the same output"
    )


@pytest.mark.parametrize("images", [np.array([-1.0, 1.0]), np.array([0, 1000])])
def test_data_outside_the_range_are_refused(images: np.ndarray, tmp_path: Path) -> None:
    shaped = np.resize(images, (256, 28, 28, 1))
    with pytest.raises(
        DataError, match=r"images must be uint8, 0 to 255, .* these are (float|int)64, (-1|0) to 1"
    ):
        train(tiny(), Split(shaped), tmp_path)
