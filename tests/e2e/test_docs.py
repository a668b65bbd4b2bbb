"""Commands and examples of the documents work as they stand."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bundle.conformal import RATES, allows_rate
from bundle.manifest import MANIFEST, ModelManifest
from tests.conftest import DATA
from tests.e2e.conftest import ROOT, SMALL, SMALL_DETECTOR, Server, run_module
from training import recipe
from training.data.photo_folder import PhotoFolder, hold_out
from training.recipe import DetectorRecipe

pytestmark = pytest.mark.usefixtures("operators_parsed_once")

README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"
PYTHON = ".venv/bin/python"
DOCUMENTS = [
    "README.md",
    "docs/first-ten-minutes.md",
    "docs/anomaly-detection.md",
    "docs/embeddings.md",
    "docs/requests.md",
    "docs/operations.md",
    "docs/bulk.md",
    "docs/protocols.md",
]
# Those whose Python examples need no more than the client; `make clients` runs the others.
PYTHON_DOCUMENTS = ["README.md", "docs/requests.md"]


def blocks(language: str, *documents: str) -> list[str]:
    return [
        block
        for document in documents
        for block in re.findall(
            rf"```{language}\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL
        )
    ]


CURLS = list(
    dict.fromkeys(block for block in blocks("bash", *DOCUMENTS) if block.startswith("curl"))
)
COMMANDS = list(
    dict.fromkeys(
        line.split("#")[0].strip()
        for block in blocks("bash", *DOCUMENTS)
        for line in block.splitlines()
        if line.startswith(("make", PYTHON))
    )
)

METHODS = {"anomaly-score": "score"}  # of the client, if not named as the operation
PICTURES = sorted(f"docs/images/{path.name}" for path in ROOT.glob("docs/images/*.png"))
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
    python = "".join(blocks("python", *PYTHON_DOCUMENTS))
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


@pytest.mark.parametrize("document", PYTHON_DOCUMENTS)
def test_the_python_examples_print_their_comments(
    document: str, server: Server, workplace: Path
) -> None:
    code = "".join(blocks("python", document)).replace(ADDRESS, server.url)
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
    assert len(promised) == len(printed) > 1
    for expected, line in zip(promised, printed, strict=True):
        assert line.startswith(expected)


def test_the_commands_of_the_documents_work(tmp_path: Path) -> None:
    assert len(COMMANDS) == 14
    for command in COMMANDS:
        runner, *words = command.split()
        if runner == "make":
            subprocess.run(["make", "--dry-run", *words], cwd=ROOT, check=True)
        else:
            assert words[0] == "-m"
            run_module(words[1], _small(words[2:], tmp_path), ROOT)
    for name in ("my-vae", "my-parts", "small-photos"):
        assert (tmp_path / "models" / name / "1" / MANIFEST).is_file()
    assert _read_paths(tmp_path / "scores.csv") == PICTURES
    assert (tmp_path / "heatmaps" / "docs" / "images" / "boot.png.png").is_file()
    shard = _read_paths(tmp_path / "scores-00000-of-00003.csv")
    assert "docs/images/noisy.png" in shard
    assert {*shard} < {*PICTURES}
    assert _read_paths(tmp_path / "cookie.csv") == ["docs/cookie.jpg"]
    assert (tmp_path / "overlays" / "docs" / "cookie.jpg.png").is_file()
    assert len(_read_paths(tmp_path / "parts.csv")) == len([*DATA.glob("cookies/test/*/*")])


def _read_paths(table: Path) -> list[str]:
    head, *rows = table.read_text(encoding="utf-8").splitlines()
    assert head.startswith("path,")
    return [row.split(",")[0] for row in rows]


def _small(arguments: list[str], directory: Path) -> list[str]:
    """Arguments of the command for a few images, away from the repository."""
    written = ("scores.csv", "cookie.csv", "parts.csv", "heatmaps", "overlays")
    places = {name: str(directory / name) for name in written}
    places |= {"parts": str(DATA / "cookies"), "new-parts": str(DATA / "cookies" / "test")}
    command = [places.get(word, word) for word in arguments]
    models = ["--models", str(directory / "models")]
    if "train" in arguments:
        command += [*models, "--runs", str(directory / "runs")]
    if "photo-anomaly" in arguments:
        command += SMALL_DETECTOR
    if "mnist-vae" in arguments:
        command += ["--data", str(DATA), *SMALL]
    if "evaluate" in arguments:
        command += ["--data", str(DATA), *models]
    if "score" in arguments and "my-parts" in arguments:
        command += models
    return command


def test_the_figures_of_other_servers_are_those_of_the_results() -> None:
    small, large = (_read_rows(RESULTS.split(f"### {name}")[1]) for name in ("28x28", "256x256"))
    rows = _read_rows(README.split("## Measured against")[1])
    assert len(rows) == 7
    for server, figures in rows.items():
        at_16_connections = [measured[server][0].split(" / ")[1] for measured in (small, large)]
        assert figures == [*at_16_connections, small[server][5]], server


def _read_rows(text: str) -> dict[str, list[str]]:
    """Cells of the first table of a text, by their row's name."""
    lines = text[text.index("\n| --- |") + 1 :].split("\n\n")[0].splitlines()[1:]
    rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {name: cells for name, *cells in rows}


def test_the_figures_of_other_models_are_those_of_the_results() -> None:
    section = README.split("AUROC of detectors in percent")[1].split("\n## ")[0]
    cells = " ".join(cell for cells in _read_rows(section).values() for cell in cells)
    figures = re.findall(r"\d+\.\d+|98", cells)
    assert len(figures) == 11
    assert [figure for figure in figures if figure not in RESULTS] == []


def test_the_messages_of_the_troubleshooting_are_those_of_the_code() -> None:
    section = README.split("## Troubleshooting")[1].split("\n## ")[0]
    cells = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    messages = [re.findall(r"`([^`]+)`", cell)[0] for cell in cells]
    paths = [*ROOT.glob("service/**/*.py"), *ROOT.glob("training/**/*.py"), ROOT / "Makefile"]
    code = "".join(
        path.read_text(encoding="utf-8") for path in [*paths, ROOT / "tools" / "get-pip"]
    )
    code = re.sub(r'"\s*f?"', "", code)  # joins a text of several lines
    assert len(messages) > 6
    for message in messages:
        fragment = max(re.split(r"\.\.\.|[\d.]+:\d+|0\.0\.0\.0|[:;,] ", message), key=len)
        assert fragment.strip() in code or message == "No module named 'torch'", message


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


def test_the_photographs_of_the_guide_allow_its_rates() -> None:
    guide = (ROOT / "docs" / "anomaly-detection.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d.]+) \| (\d+) \| .*?(\d+)(?: and more)? \|$", guide, re.MULTILINE)
    assert [float(rate) for rate, *_ in rows] == sorted(RATES, reverse=True)
    detector = recipe.load("photo-anomaly")
    assert isinstance(detector, DetectorRecipe)
    for rate, calibrating, taken in rows:
        assert allows_rate(int(calibrating), float(rate))
        assert _count_calibrating(int(taken), detector.data.test) == int(calibrating)
        assert _count_calibrating(int(taken) - 1, detector.data.test) < int(calibrating)


def _count_calibrating(count: int, most: int) -> int:
    """Photographs that calibrate, of so many in a folder without `test/good`."""
    paths = tuple(Path(f"{index}.jpg") for index in range(count))
    labels = np.zeros(0, dtype=np.int64)
    folder = PhotoFolder(Path(), paths, (), (), (), (), labels, (), {}, (1, 1))
    return len(hold_out(folder, most, seed=0).training)


def test_no_command_needs_an_activated_environment() -> None:
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "client" / "README.md"]
    bare = re.compile(r"^(?:python3?|torchrun) .*|(?<![\w/] -m )\bpip install.*", re.MULTILINE)
    for document in documents:
        found = bare.findall(document.read_text(encoding="utf-8"))
        assert [line for line in found if not line.startswith("python3 -m venv")] == [], document


def test_every_link_of_the_documents_leads_somewhere() -> None:
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
            assert (document.parent / target).exists(), (document.name, target)


def test_the_pictures_are_drawn_from_the_shipped_models(tmp_path: Path) -> None:
    from training import cli

    photograph = ["--photo", str(ROOT / "docs" / "cookie.jpg")]
    places = ["--data", str(DATA), "--models", str(ROOT / "models"), "--output", str(tmp_path)]
    assert cli.main(["overview", *photograph, *places]) == 0
    for name in ("overview.png", "digits.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_completion_is_installed_in_a_new_account(tmp_path: Path) -> None:
    script = next(block for block in blocks("text", "docs/operations.md") if "mkdir -p" in block)
    _, *lines = script.splitlines()  # without the installation of the extra
    program = f"{shlex.quote(sys.executable)} -m service"
    commands = "\n".join(lines).replace(".venv/bin/autoencoder-service", program)
    subprocess.run(
        ["sh", "-e", "-c", commands], cwd=ROOT, env=os.environ | {"HOME": str(tmp_path)}, check=True
    )
    scripts = [path for path in tmp_path.rglob("*autoencoder-service*") if path.is_file()]
    assert len(scripts) == 3
    assert all("create-key" in path.read_text(encoding="utf-8") for path in scripts)
