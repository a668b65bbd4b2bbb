import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training.conftest import tiny, train
from training.data.splits import Split
from training.errors import RecipeError
from training.recipe import Recipe
from training.trainer.distributed import Process
from training.trainer.tracking import METRICS_FILE

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
        "from tests.training.trainer.test_distributed import SHARED, shared\n"
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


def test_a_batch_that_the_processes_cannot_share_is_refused(images: Split, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a batch_size of 32 cannot be shared by 3 processes"):
        train(tiny(), images, tmp_path, Process(torch.device("cpu"), count=3))
