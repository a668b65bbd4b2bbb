from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.training.conftest import tiny, train
from training.data.splits import Split
from training.errors import CheckpointError
from training.trainer.checkpoint import Checkpoints


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


def test_a_best_epoch_that_is_lost_is_reported(images: Split, tmp_path: Path) -> None:
    recipe = tiny("mnist-undercomplete", "training.patience=2")
    train(recipe, images, tmp_path)
    (Checkpoints(tmp_path, recipe.fingerprint()).directory / "best-autoencoder.json").unlink()
    with pytest.raises(CheckpointError, match="lacks best-autoencoder: processes must share it"):
        train(recipe, images, tmp_path)
