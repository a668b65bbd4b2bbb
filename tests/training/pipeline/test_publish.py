import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bundle.manifest import MANIFEST, ModelManifest
from tests.bundles import load_registry, write_bundle
from training.errors import IncompatibleError
from training.pipeline import publish
from training.pipeline.destinations import ModelsDirectory

ROOT = Path(__file__).parents[3]
PUBLISH_UNTIL = """
import os, shutil, signal, sys
from pathlib import Path
from bundle.manifest import MANIFEST, ModelManifest
from training.errors import IncompatibleError
from training.pipeline import publish
from training.pipeline.destinations import ModelsDirectory

def end(*_):
    os.kill(os.getpid(), signal.SIGKILL)

bundle, step = Path(sys.argv[1]), sys.argv[2]
manifest = ModelManifest.model_validate_json((bundle / MANIFEST).read_bytes())
models = ModelsDirectory(bundle.parents[1])
with models.open_staging(manifest.name) as staging:
    for file in manifest.files:
        shutil.copy(bundle / file, staging)
        if step == "the first file":
            end()
    publish.publish(models, staging, manifest, end)
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

    models = ModelsDirectory(tmp_path)
    with models.open_staging("tiny") as staging:
        for file in manifest.files:
            shutil.copy(bundle / file, staging)
        with pytest.raises(OSError, match="No space left"):
            publish.publish(models, staging, manifest, fill)
    assert sorted(tmp_path.rglob("*")) == before


def publish_again(bundle: Path, change: bytes, compatible: bool) -> publish.Published:
    """Publish a copy of a bundle whose encoder has other bytes behind it."""
    manifest = ModelManifest.model_validate_json((bundle / MANIFEST).read_bytes())
    models = ModelsDirectory(bundle.parents[1])
    with models.open_staging(manifest.name) as staging:
        for file in manifest.files:
            shutil.copy(bundle / file, staging)
        encoder = staging / manifest.graphs["encoder"]
        encoder.write_bytes(encoder.read_bytes() + change)
        return publish.publish(models, staging, manifest, compatible=compatible)


def test_a_version_that_encodes_otherwise_is_named_or_refused(tmp_path: Path) -> None:
    first = write_bundle(tmp_path, "tiny", 1)
    assert publish_again(first, b"", compatible=True).other_encoder is None
    with pytest.raises(IncompatibleError, match="tiny would encode unlike version 2"):
        publish_again(first, b"changed", compatible=True)
    assert sorted(path.name for path in first.parent.iterdir()) == ["1", "2"]
    assert publish_again(first, b"changed", compatible=False).other_encoder == 2
