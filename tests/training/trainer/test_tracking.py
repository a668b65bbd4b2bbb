import json
from pathlib import Path

from tests.training.conftest import tiny, train
from training.data.splits import Split
from training.trainer.checkpoint import Checkpoints
from training.trainer.tracking import METRICS_FILE


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
