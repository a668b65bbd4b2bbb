import re
from pathlib import Path

from bundle.manifest import ModelManifest
from tests.conftest import DATA
from training import cli
from training.export.published import CARD, REPORT


def test_the_report_is_one_page_and_its_pictures(published: Path, manifest: ModelManifest) -> None:
    report = published / REPORT
    pictures = {path.stem for path in report.glob("*.png")}
    assert {
        "losses",
        "reconstructions",
        "latents",
        "samples",
        "interpolations",
        "scores",
    } <= pictures
    assert ("denoised" in pictures) == (manifest.name == "mnist-denoising")
    assert ("grid" in pictures) == (manifest.name == "mnist-latent2")
    assert ("confusion" in pictures) == (manifest.name == "mnist-classifier")
    page = (report / "index.html").read_text()
    assert page.count("data:image/png;base64,") == len(pictures)
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    for name, value in manifest.metrics.items():
        assert f"<td>{name}</td><td>{value:.6g}</td>" in page
    assert f"]({REPORT}/index.html)" in (published / CARD).read_text()


def test_the_report_can_be_drawn_again(
    published: Path, manifest: ModelManifest, tmp_path: Path
) -> None:
    command = [
        "report",
        manifest.name,
        "--data",
        str(DATA),
        "--models",
        str(published.parent.parent),
    ]
    assert cli.main([*command, "--output", str(tmp_path)]) == 0
    for path in (published / REPORT).glob("*.png"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
