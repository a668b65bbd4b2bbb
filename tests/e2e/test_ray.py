"""The bulk command on Ray, which starts on this machine; `make ray` installs it and runs these."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bundle.errors import InvalidParameter
from bundle.stores import open_store
from tests.bundles import write_bundle
from tests.e2e.conftest import ROOT
from tests.stores import store_url
from tests.terminals import Terminal

__all__ = ["store_url"]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed"
)


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    write_bundle(tmp_path / "models", "tiny")
    command = [sys.executable, "-m", "service", "score", "--model", "tiny", "--device", "cpu"]
    return [*command, "--models", str(tmp_path / "models"), "--false-positive-rate", "0.2"]


def read(output: str) -> list[dict[str, Any]]:
    """Read the rows of a Parquet file, or of a folder of them, sorted by path."""
    from pyarrow import dataset, fs

    store, path = fs.FileSystem.from_uri(output)
    rows: list[dict[str, Any]] = dataset.dataset(path, filesystem=store).to_table().to_pylist()
    return sorted(rows, key=lambda row: str(row["path"]))


def test_an_actor_has_room_on_one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    from service.bulk import ray_engine

    def count(*resources: int) -> int:
        return ray_engine._count_room(ray_engine.Resources(*resources))

    nodes = [
        {"Alive": True, "Resources": {"CPU": 3.0, "GPU": 1.0}},
        {"Alive": True, "Resources": {"CPU": 3.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    assert [count(1, 0), count(2, 0), count(3, 0), count(1, 1)] == [6, 2, 2, 1]
    for resources in ((4, 0), (1, 2)):
        with pytest.raises(ray_engine.RayEngineError, match="and no node has them; lower"):
            count(*resources)


def test_two_files_with_one_name_in_the_table_are_an_error() -> None:
    from service.bulk import ray_engine

    same = [Path("a.png"), Path("a.png"), Path("b\udcff.png")]
    assert [*ray_engine._name_files(same)] == ["a.png", "b\\xff.png"]
    with pytest.raises(InvalidParameter, match=r"two files are b\\xff\.png in the table; rename"):
        ray_engine._name_files([*same, Path("b\\xff.png")])


def test_the_rows_equal_those_of_the_local_engine(
    command: list[str], tmp_path: Path, store_url: str
) -> None:
    import obstore

    images = np.random.default_rng(0).integers(0, 256, (150, 4, 6), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    store = open_store(store_url, create=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "photos" / f"{index:03}.png")
    (tmp_path / "photos" / "damaged.png").write_bytes(b"none")
    for path in (tmp_path / "photos").iterdir():
        obstore.put(store, f"photos/{path.name}", path.read_bytes())
    local, ray = f"{tmp_path}/local.parquet", f"{store_url}/scores"
    photos = f"{store_url}/photos"
    for output, engine in ((local, "local"), (ray, "ray")):
        run = [*command, photos, "--output", output, "--engine", engine]
        subprocess.run(run, cwd=ROOT, check=True)
    expected, found = read(local), read(ray)
    assert len(expected) == 151
    for row, ray_row in zip(expected, found, strict=True):
        for column in ("score", "p_value", "threshold"):
            assert ray_row.pop(column) == pytest.approx(row.pop(column))
    assert found == expected
    assert found[-1]["error"].startswith("the bytes are not an image")
    again = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert f"--output {ray} exists; remove it" in again.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_an_ended_run_is_resumed(
    command: list[str], tmp_path: Path, number: signal.Signals, status: int
) -> None:
    photos, output = tmp_path / "photos", tmp_path / "scores"
    photos.mkdir()
    slow = np.random.default_rng(0).integers(0, 256, (2000, 2000), dtype=np.uint8)
    Image.fromarray(slow).save(photos / "000.png")
    for index in range(1, 320):
        os.link(photos / "000.png", photos / f"{index:03}.png")
    run = [*command, "photos", "--output", str(output), "--engine", "ray", "--actors", "1"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/client"}
    terminal = Terminal()
    with subprocess.Popen(run, cwd=tmp_path, env=environment, stderr=terminal.theirs) as ended:
        os.close(terminal.theirs)
        terminal.wait_for(r"[1-9]\d*/320")  # a block is written
        ended.send_signal(number)
        assert ended.wait(timeout=60) == status
    terminal.close()
    left = [*output.glob("*.parquet")]
    assert left
    assert not (output / "_SUCCESS").exists()
    (output / "incomplete.parquet").write_bytes(left[0].read_bytes()[:-9])
    again = subprocess.run(
        run, cwd=tmp_path, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    assert again.stdout.startswith(f"{output}: 320 images, ")
    rows = read(str(output))
    assert [row["path"] for row in rows] == [f"photos/{index:03}.png" for index in range(320)]
    assert {row["error"] for row in rows} == {None}
    assert {path.stat().st_ino for path in left} <= {
        path.stat().st_ino for path in output.glob("*.parquet")
    }
