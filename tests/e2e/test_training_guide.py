"""Commands of docs/training.md work, here on a few images and away from the repository."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.results.__main__ import render
from bundle.manifest import MANIFEST
from tests.conftest import DATA
from tests.e2e.conftest import ROOT, SMALL, SMALL_DETECTOR, run_module
from training import recipe

pytestmark = pytest.mark.usefixtures("operators_parsed_once")

GUIDE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL)
    for line in block.splitlines()
]
OPTIONS = {
    "train": ["--data", str(DATA), "--set", "mixture_components=2"],
    "evaluate": ["--data", str(DATA)],
    "report": ["--data", str(DATA)],
    "convert-fp16": ["--data", str(DATA)],
    "benchmarks.zoo": ["--data", str(DATA), "--set", "mixture_components=2"],
    "benchmarks.few_labels": [
        "--data",
        str(DATA),
        "--seeds",
        "2",
        "--labels",
        "20",
        "--steps",
        "4",
    ],
    "benchmarks.fp16": ["--data", str(DATA)],
    "benchmarks.bulk": ["--data", str(DATA), "--images", "1000"],
    "benchmarks.anomaly": SMALL_DETECTOR,
    "benchmarks.training_speed": ["--data", str(DATA), "--seconds", "0.01", "--rounds", "1"],
}


def small(words: list[str]) -> list[str]:
    """The command with fewer images and steps."""
    if "my-embeddings" in words:
        return [*words, "--set", "embedding.size=64"]
    kind = next((word for word in words if word in OPTIONS), None)
    extra = list(OPTIONS[kind]) if kind else []
    if kind in ("train", "benchmarks.zoo", "benchmarks.few_labels", "benchmarks.training_speed"):
        extra += SMALL
    if "photo-anomaly" in words:
        return [*words, *OPTIONS["benchmarks.anomaly"]]
    if "folder" in words:
        extra += [
            "--data",
            "photos",
            "--set",
            "data.test=4",
            "--set",
            "data.calibration=8",
            "--set",
            "data.validation=4",
        ]
        extra += ["--set", "training.batch_size=2"]
    if "pretraining.epochs=5" in words:
        extra += ["--set", "pretraining.epochs=1", "--set", "pretraining.batch_size=32"]
    return [*words, *extra]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the photographs that the guide speaks of; the commands write here."""
    directory = tmp_path_factory.mktemp("guide")
    (directory / "photos").mkdir()
    (directory / "docs").mkdir()
    shutil.copytree(DATA / "cookies", directory / "data" / "cookies")
    shutil.copytree(DATA / "cookies", directory / "parts")
    generator = np.random.default_rng(0)
    for index in range(60):
        picture = generator.integers(0, 256, (20 + index, 30, 3), dtype=np.uint8)
        Image.fromarray(picture).save(directory / "photos" / f"{index}.png")
    shutil.copytree(directory / "photos", directory / "new-photos")
    Image.new("L", (9, 9)).save(directory / "photos" / "grey.png")
    return directory


def run(command: str, workplace: Path) -> None:
    """Run a command; torchrun in processes of its own."""
    runner, *words = small(command.split())
    if runner == ".venv/bin/torchrun":
        launcher = [sys.executable, "-m", "torch.distributed.run", *words]
        environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
        subprocess.run(launcher, cwd=workplace, env=environment, check=True, timeout=300)
    else:
        assert (runner, words[0]) == (".venv/bin/python", "-m")
        run_module(words[1], words[2:], workplace)


def test_the_commands_of_the_guide_work(workplace: Path) -> None:
    assert len(COMMANDS) == 20
    for command in COMMANDS:
        run(command, workplace)
    published = {path.parts[-3] for path in (workplace / "models").glob(f"*/1/{MANIFEST}")}
    of_stacks = {"my-stack", "sharp", "greedy", "my-stack-fp16", "shared", "mnist-undercomplete"}
    assert published == {*of_stacks, "my-photos", "my-embeddings", "parts"}
    assert (workplace / "models" / "my-photos" / "2" / MANIFEST).is_file()
    seeds = {path.parts[-3] for path in (workplace / "runs" / "study").glob(f"*/1/{MANIFEST}")}
    assert seeds == {"mnist-undercomplete-seed1", "mnist-undercomplete-seed2"}
    results = (workplace / "docs" / "results.md").read_text()
    assert re.search(r"mnist-undercomplete`\].* MSE \d\.\d+ ± \d\.\d+ .*3 seeds", results)
    assert re.search(
        r"\| cookies: train/good against test \| \d+\.\d\d ± \d+\.\d\d; pixels \d+\.\d\d", results
    )
    assert re.search(r"killed run left [\d,]+ rows\. .*, with\n0 rows lost and 0 doubled", results)
    assert re.search(r"\| 20 \| \d+\.\d\d ± \d+\.\d\d % \| \d+\.\d\d ± \d+\.\d\d % \|", results)
    speeds = json.loads((workplace / "docs" / "results" / "training-speed.json").read_text())[
        "images_per_second"
    ]
    assert all(set(rates) == {"ours", "bare", "dataloader"} for rates in speeds.values())


def test_the_results_are_rendered_from_their_metrics() -> None:
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == render(
        ROOT / "docs" / "results"
    )


def test_the_guide_says_how_many_images_a_folder_needs() -> None:
    chosen = recipe.load_network("folder")
    held_out = chosen.data.test + chosen.data.calibration + chosen.data.validation
    assert f"{held_out} are held out" in GUIDE
    assert f"{held_out + chosen.training.batch_size} are the fewest for its batches" in GUIDE
