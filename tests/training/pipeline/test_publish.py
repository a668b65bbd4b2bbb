import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bundle.manifest import MANIFEST, ModelManifest
from tests.bundles import load_registry, write_bundle
from training.pipeline import publish

ROOT = Path(__file__).parents[3]
PUBLISH_UNTIL = """
import os, shutil, signal, sys
from pathlib import Path
from bundle.manifest import MANIFEST, ModelManifest
from training.pipeline import publish

def end(*_):
    os.kill(os.getpid(), signal.SIGKILL)

bundle, step = Path(sys.argv[1]), sys.argv[2]
manifest = ModelManifest.model_validate_json((bundle / MANIFEST).read_bytes())
with publish.open_staging(bundle.parents[1], manifest.name) as staging:
    for file in manifest.files:
        shutil.copy(bundle / file, staging)
        if step == "the first file":
            end()
    publish.publish(staging, manifest, end)
"""


@pytest.mark.parametrize("step", ["the first file", "the report"])
def test_a_publication_that_is_killed_leaves_a_repository_that_loads(
    tmp_path: Path, step: str
) -> None:
    bundle = write_bundle(tmp_path, "tiny", 1)
    arguments = [sys.executable, "-c", PUBLISH_UNTIL, str(bundle), step]
    done = subprocess.run(arguments, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    registry = load_registry(tmp_path)
    assert (registry.versions("tiny"), registry.failures()) == ([1], {})


def test_a_full_disk_leaves_what_was_published(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path, "tiny", 1)
    before = sorted(tmp_path.rglob("*"))
    manifest = ModelManifest.model_validate_json((bundle / MANIFEST).read_bytes())

    def fill(_: object) -> None:
        raise OSError("No space left on device")

    with publish.open_staging(tmp_path, "tiny") as staging:
        for file in manifest.files:
            shutil.copy(bundle / file, staging)
        with pytest.raises(OSError, match="No space left"):
            publish.publish(staging, manifest, fill)
    assert sorted(tmp_path.rglob("*")) == before
