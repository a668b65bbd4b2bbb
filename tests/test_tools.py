import subprocess
import sys
from pathlib import Path

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
