import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_a_missing_pip_names_its_package(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    refusing = tmp_path / "bin" / "apt-get"
    refusing.write_text("#!/bin/sh\nexit 100\n")
    refusing.chmod(0o755)
    done = subprocess.run(
        [ROOT / "tools" / "get-pip", tmp_path],
        env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "install python3-venv" in done.stderr


def test_the_extra_bulk_has_what_the_client_needs() -> None:
    project, client = (
        tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
        for folder in (".", "client")
    )
    required = [*project["dependencies"], *project["optional-dependencies"]["bulk"]]
    names = {requirement.split(">=")[0] for requirement in required}
    assert {requirement.split(">=")[0] for requirement in client["dependencies"]} <= names


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_image_installs_the_locked_versions_by_hash(device: str) -> None:
    locked = set(re.findall(r"^\S+==\S+", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    text = (ROOT / "requirements" / f"{device}.txt").read_text()
    installed = re.findall(r"^(\S+==\S+)(?: ;.*)? \\\n    --hash=sha256:", text, re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    chosen = [name for extra in (device, "grpc", "stores", "tracing") for name in extras[extra]]
    required = [*project["dependencies"], *chosen]
    assert set(installed) <= locked
    assert {re.split(r"[\[>=<;]", name)[0] for name in required} <= {
        name.split("==")[0] for name in installed
    }
