"""Commands and examples of the documents work as they stand."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bundle.manifest import MANIFEST, ModelManifest
from tests.conftest import DATA
from tests.e2e.conftest import ROOT, SMALL, SMALL_DETECTOR, Server, run_module

pytestmark = pytest.mark.usefixtures("operators_parsed_once")

README = (ROOT / "README.md").read_text(encoding="utf-8")
PROTOCOLS = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"


def blocks(language: str, document: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document, re.DOTALL)


CURLS = [
    block
    for document in (README, PROTOCOLS)
    for block in blocks("bash", document)
    if block.startswith("curl")
]
COMMANDS = [
    line
    for block in blocks("bash")
    for line in block.splitlines()
    if line.startswith(("make", "python"))
]

METHODS = {"anomaly-score": "score"}  # of the client, if not named as the operation
PICTURES = ("boot", "noisy", "seven", "two")
PHOTOGRAPHS = ("docs/cookie.jpg", "tests/data/cookies/test/good/test-normal-1.jpg")


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A copy of the images that the examples read, because they write files."""
    shutil.copytree(ROOT / "docs" / "images", tmp_path / "docs" / "images")
    for photograph in PHOTOGRAPHS:
        (tmp_path / photograph).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / photograph, tmp_path / photograph)
    return tmp_path


def test_every_operation_has_an_example_in_curl_and_in_python() -> None:
    python = "".join(blocks("python"))
    for operation in (
        "encode",
        "decode",
        "reconstruct",
        "denoise",
        "sample",
        "anomaly-score",
        "interpolate",
        "classify",
    ):
        assert any(operation in curl for curl in CURLS)
        assert f"client.{METHODS.get(operation, operation)}(" in python


def model_and_operation(curl: str) -> str:
    found = re.search(r"models/([a-z.-]+/[a-z-]+)", curl)
    assert found is not None, curl
    return found[1]


@pytest.mark.parametrize("block", CURLS, ids=model_and_operation)
def test_the_curl_examples_work(block: str, server: Server, workplace: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = block.replace(ADDRESS, server.url).replace("curl -s", "curl -s --fail-with-body")
    done = subprocess.run(
        ["sh", "-c", command], cwd=workplace, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout
    written = [path.read_bytes() for path in workplace.glob("*.png")] or [done.stdout]
    assert written[0].startswith((b"\x89PNG", b'{"model":"', b'{"model_name":"'))


def test_the_python_examples_print_their_comments(server: Server, workplace: Path) -> None:
    code = "".join(blocks("python")).replace(ADDRESS, server.url)
    done = subprocess.run(
        [sys.executable, "-"],
        input=code,
        cwd=workplace,
        env=os.environ | {"PYTHONPATH": str(ROOT / "client")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    promised = [
        re.split(r"\.\.\.|: ", comment)[0] for comment in re.findall(r"print\(.*  # (.*)", code)
    ]
    printed = [line for line in done.stdout.splitlines() if not line.startswith("[")]
    assert len(promised) == len(printed) == 8
    for expected, line in zip(promised, printed, strict=True):
        assert line.startswith(expected)


def test_the_commands_of_the_readme_work(tmp_path: Path) -> None:
    assert len(COMMANDS) == 9
    for command in COMMANDS:
        runner, *words = command.split("#")[0].split()
        if runner == "make":
            subprocess.run(["make", "--dry-run", *words], cwd=ROOT, check=True)
        else:
            assert words[0] == "-m"
            run_module(words[1], _small(words[2:], tmp_path), ROOT)
    assert (tmp_path / "models" / "my-vae" / "1" / MANIFEST).is_file()
    rows = (tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[0] for row in rows] == [
        "path",
        *(f"docs/images/{name}.png" for name in PICTURES),
    ]
    assert (tmp_path / "heatmaps" / "docs" / "images" / "boot.png.png").is_file()
    shard = (tmp_path / "scores-00000-of-00003.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[0] for row in shard] == ["path", "docs/images/noisy.png"]


def _small(arguments: list[str], directory: Path) -> list[str]:
    """Arguments of the command for a few images, away from the repository."""
    places = {
        "scores.csv": str(directory / "scores.csv"),
        "heatmaps": str(directory / "heatmaps"),
        "parts": str(DATA / "cookies"),
    }
    command = [places.get(word, word) for word in arguments]
    if "train" in arguments:
        command += ["--models", str(directory / "models"), "--runs", str(directory / "runs")]
        command += SMALL_DETECTOR if "photo-anomaly" in arguments else ["--data", str(DATA), *SMALL]
    if "evaluate" in arguments:
        command += ["--data", str(DATA), "--models", str(directory / "models")]
    return command


def test_the_metrics_of_the_readme_are_those_of_the_bundles() -> None:
    for path in sorted((ROOT / "models").glob("*/*/manifest.json")):
        manifest = ModelManifest.model_validate_json(path.read_bytes())
        (row,) = (line for line in README.splitlines() if line.startswith(f"| [`{manifest.name}`]"))
        assert f"]({path.parent.relative_to(ROOT)}/README.md)" in row
        for metric in _format_metrics(manifest):
            assert metric in row, (metric, row)


def _format_metrics(manifest: ModelManifest) -> list[str]:
    metrics = manifest.metrics
    if manifest.calibration is None:
        measured = json.loads(
            (ROOT / "docs" / "results" / "embeddings.json").read_text(encoding="utf-8")
        )
        return [
            f"5-NN accuracy {100 * measured[f'`{manifest.name}`']['measured']['5-nn'][0]:.1f} %"
        ]
    auroc = next(
        f"{value:.4f}" for name, value in metrics.items() if name.startswith("auroc_against_")
    )
    if "pixel_auroc" in metrics:
        pca = metrics["pca_mean_auroc_against_defects"]
        return [auroc, f"AUROC of pixels {metrics['pixel_auroc']:.4f}", f"PCA: {pca:.4f}"]
    if "psnr" in metrics:
        return [auroc, f"{metrics['psnr']:.2f} dB", f"SSIM {metrics['ssim']:.3f}"]
    if "nll" in metrics:
        return [auroc, f"NLL {metrics['nll']:.2f} nats"]
    if "accuracy" in metrics:
        return [auroc, f"accuracy {100 * metrics['accuracy']:.2f} %"]
    return [auroc, f"MSE {metrics['mse']:.5f}"]


def test_every_link_of_the_documents_leads_somewhere() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), (document.name, target)


def test_the_pictures_are_drawn_from_the_shipped_models(tmp_path: Path) -> None:
    from training import cli

    photograph = ["--photo", str(ROOT / "docs" / "cookie.jpg")]
    places = ["--data", str(DATA), "--models", str(ROOT / "models"), "--output", str(tmp_path)]
    assert cli.main(["overview", *photograph, *places]) == 0
    for name in ("overview.png", "digits.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
