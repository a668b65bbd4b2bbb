import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.training.conftest import assert_equal, split, tiny, train
from training import recipe
from training.architectures import build
from training.data.splits import Split, TrainingSplits
from training.errors import CheckpointError, DataError, RecipeError
from training.image_ops import to_float
from training.pipeline.plan import plan_stages
from training.recipe import Recipe
from training.trainer.checkpoint import Checkpoints, State
from training.trainer.distributed import Process
from training.trainer.tracking import METRICS_FILE

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


SHARED = {
    "mnist-undercomplete": [],
    "mnist-vae": [],
    "mnist-classifier": ["training.patience=1", "classifier.training.precision=float32"],
    "mnist-stacked": ["optimiser.kind=muon"],
}


def shared(name: str) -> Recipe:
    exact = ["training.precision=float32", "training.epochs=3", "augmentation.shift=1"]
    return tiny(name, *exact, *SHARED[name])


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of all recipes by two processes, which are started once."""
    directory = tmp_path_factory.mktemp("two")
    script = directory / "two.py"
    script.write_text(
        "import sys; from pathlib import Path\n"
        "import torch\n"
        "from tests.training.conftest import train\n"
        "from tests.training.trainer.test_loop import SHARED, shared\n"
        "from tests.conftest import DATA\n"
        "from training.data import mnist\n"
        "from training.trainer import distributed\n"
        "torch.set_num_threads(1)\n"
        "with distributed.open_process() as process:\n"
        "    assert process.count == 2\n"
        "    images = mnist.load_training('mnist', DATA)\n"
        "    for name in SHARED:\n"
        "        train(shared(name), images, Path(sys.argv[1]) / name, process)\n"
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    environment = {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, "--nproc-per-node", "2", str(script), str(directory)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return directory


@pytest.mark.parametrize("name", SHARED)
def test_two_processes_train_to_the_same_loss_as_one(
    name: str, two_processes: Path, images: Split, tmp_path: Path
) -> None:
    """Gradients are the whole batch's but for rounding, which AdamW enlarges if they are tiny."""
    _, history = train(shared(name), images, tmp_path)
    run = two_processes / name / shared(name).fingerprint()[:12]
    lines = (run / METRICS_FILE).read_text().splitlines()
    for row, line in zip(history, lines, strict=True):
        assert json.loads(line)["validation_loss"] == pytest.approx(
            row["validation_loss"], rel=1e-5
        )


def test_a_checkpoint_of_another_recipe_is_not_taken(images: Split, tmp_path: Path) -> None:
    train(tiny(), images, tmp_path)
    assert Checkpoints(tmp_path, tiny().fingerprint()).load("last") is not None
    assert (
        Checkpoints(tmp_path, tiny("mnist-undercomplete", "seed=5").fingerprint()).load("last")
        is None
    )


@pytest.mark.parametrize("damage", [b"", b"junk", b"{}", b'{"fingerprint": "x"}'])
@pytest.mark.parametrize("file", ["last.json", "last-a.safetensors"])
def test_a_damaged_checkpoint_is_reported(tmp_path: Path, damage: bytes, file: str) -> None:
    checkpoints = Checkpoints(tmp_path, tiny().fingerprint())
    checkpoints.save("last", {"weights": torch.ones(3)})
    (checkpoints.directory / file).write_bytes(damage)
    with pytest.raises(CheckpointError, match=r"is damaged.*delete .* to start afresh"):
        checkpoints.load("last")


def test_a_checkpoint_keeps_every_bit_of_a_tree(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "x" * 64)
    tree: dict[str, Any] = {
        "a": [torch.rand(3, dtype=torch.float64), {"b": 0.1, "c": None}],
        "state": {0: {"step": torch.tensor(2.0)}},
    }
    for _ in range(3):
        checkpoints.save("best", tree)
        found = checkpoints.load("best")
        assert found is not None
        assert torch.equal(found["a"][0], tree["a"][0])
        assert found["a"][1] == {"b": 0.1, "c": None}
        assert found["state"][0]["step"] == 2


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "x" * 64)
    checkpoints.save("last", {"epoch": 1, "weights": torch.ones(1)})
    save_file(
        {"/weights": torch.zeros(1)}, checkpoints.directory / "last-b.safetensors"
    )  # the next one's first half
    found = checkpoints.load("last")
    assert found == {"epoch": 1, "weights": torch.ones(1)}


def test_a_checkpoint_of_other_code_is_reported(images: Split, tmp_path: Path) -> None:
    train(tiny(), images, tmp_path)
    checkpoints = Checkpoints(tmp_path, tiny().fingerprint())
    state = checkpoints.load("last")
    assert state is not None
    checkpoints.save("last", state | {"run": state["run"] | {"network": {}}})
    with pytest.raises(CheckpointError, match="is of other code"):
        train(tiny(), images, tmp_path)


def test_a_checkpoint_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot be written"):
        Checkpoints(tmp_path / "file" / "runs", "x").save("last", {})


def test_every_epoch_is_tracked_in_lines_and_for_tensorboard(images: Split, tmp_path: Path) -> None:
    recipe = tiny("mnist-classifier")
    _, history = train(recipe, images, tmp_path)
    directory = Checkpoints(tmp_path, recipe.fingerprint()).directory
    rows = [json.loads(line) for line in (directory / METRICS_FILE).read_text().splitlines()]
    assert rows == history
    assert [(row["stage"], row["epoch"]) for row in rows] == [
        ("autoencoder", 1),
        ("autoencoder", 2),
        ("classifier", 1),
        ("classifier", 2),
    ]
    assert {
        "loss",
        "learning_rate",
        "images_per_second",
        "validation_loss",
        "validation_mse",
    } <= rows[0].keys()
    assert 0 <= rows[-1]["validation_error_rate"] <= 1
    (events,) = directory.glob("events.out.tfevents.*")
    assert b"classifier/validation_loss" in events.read_bytes()


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


def test_a_batch_that_the_processes_cannot_share_is_refused(images: Split, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a batch_size of 32 cannot be shared by 3 processes"):
        train(tiny(), images, tmp_path, Process(torch.device("cpu"), count=3))


def test_the_splits_do_not_overlap_and_hold_every_image() -> None:
    numbered = Split(np.arange(256, dtype=np.uint8).reshape(-1, 1, 1, 1), np.arange(256))
    splits = split(tiny(), numbered)
    assert (len(splits.training), len(splits.validation), len(splits.calibration)) == (186, 20, 50)
    all_splits = (splits.training, splits.validation, splits.calibration)
    assert sorted(np.concatenate([each.images for each in all_splits]).ravel().tolist()) == list(
        range(256)
    )
    for each in all_splits:
        np.testing.assert_array_equal(each.images.ravel(), each.labels)


def test_too_few_images_are_refused(images: Split) -> None:
    with pytest.raises(DataError, match=r"70 images .* too few: 50 \(data.calibration\) and 20 "):
        split(tiny(), images.take(np.arange(70)))


def test_a_best_epoch_that_is_lost_is_reported(images: Split, tmp_path: Path) -> None:
    recipe = tiny("mnist-undercomplete", "training.patience=2")
    train(recipe, images, tmp_path)
    (Checkpoints(tmp_path, recipe.fingerprint()).directory / "best-autoencoder.json").unlink()
    with pytest.raises(CheckpointError, match="lacks best-autoencoder: processes must share it"):
        train(recipe, images, tmp_path)


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
