"""Writing a bundle, every file in a hidden directory first and then one rename; and reading it again."""

import errno
import importlib.metadata
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from service import imaging
from service.latents import GaussianMixture, NormalPrior
from service.manifest import MANIFEST, InputSpec, MixturePrior, ModelManifest, sha256_of
from training.data import Images
from training.errors import DataError
from training.graphs import Graphs

GOLDEN = "golden.npz"
LARGE = 64 * 64  # pixels: the golden tensors of larger images fill megabytes
PRIOR = "prior.npz"
CARD = "README.md"
HISTORY = "history.json"
REPORT = "report"
LIBRARIES = ("torch", "onnx", "onnxscript", "numpy", "pillow", "scikit-learn", "scikit-image", "scipy")


@contextmanager
def staging(models: Path, name: str) -> Iterator[Path]:
    """A hidden directory to write a bundle to. `publish` makes it visible; else it is removed at the end."""
    home = models / name
    home.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=".publishing-", dir=home))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        with suppress(OSError):
            home.rmdir()  # where nothing was published


def publish(directory: Path, finish: Callable[[int], None]) -> Path:
    """Give a bundle the next free version number and its name, in one rename; `finish` writes what holds the number."""
    directory.chmod(0o755)
    while True:
        published = [int(path.name) for path in directory.parent.iterdir() if path.name.isdecimal()]
        version = max(published, default=0) + 1
        finish(version)
        try:
            return directory.rename(directory.parent / str(version))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise  # else another run has just published this number


class Published:
    """The bundle in a directory: its manifest, its graphs, and its prior where it has one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.manifest = ModelManifest.model_validate_json((directory / MANIFEST).read_bytes())
        self.graphs = Graphs(directory, self.manifest.graphs)
        prior = self.manifest.prior
        self.prior = (
            GaussianMixture.load(directory / prior.file)
            if isinstance(prior, MixturePrior)
            else NormalPrior(self.manifest.latent_dim)
        )

    def history(self) -> list[dict[str, Any]]:
        """What was tracked while training: a row for each epoch."""
        rows: list[dict[str, Any]] = json.loads((self.directory / HISTORY).read_text(encoding="utf-8"))
        return rows


def newest(models: Path, name: str) -> Published:
    """The newest published version of a model. Raises DataError where there is none."""
    versions = [path for path in (models / name).glob("*") if path.name.isdecimal()]
    if not versions:
        raise DataError(f"there is no bundle of {name} in {models}; train it first")
    return Published(max(versions, key=lambda path: int(path.name)))


def write_golden(graphs: Graphs, samples: Images, spec: InputSpec, path: Path) -> None:
    """Store what the graphs make of a few images, one of them resized: every tensor of the chain by its name."""
    images = samples[: 4 if spec.height * spec.width <= LARGE else 2].copy()
    images[-1] = imaging.fit(imaging.resize(images[-1], (spec.height * 2, spec.width * 2), spec), spec)
    np.savez_compressed(path, allow_pickle=False, **graphs.chain(graphs.names, images=images))


def digests(directory: Path) -> dict[str, str]:
    """SHA-256 of each file but the manifest, and but the report, which can be drawn again."""
    files = sorted(path for path in directory.iterdir() if path.is_file() and path.name != MANIFEST)
    return {path.name: sha256_of(path) for path in files}


def write_manifest(manifest: ModelManifest, directory: Path) -> None:
    """Write the model card, which is made from the manifest, and the manifest with the digest of every other file."""
    (directory / CARD).write_text(card(manifest), encoding="utf-8")
    complete = manifest.model_copy(update={"files": digests(directory)})
    # What is usual is left out, for services of before there was a choice.
    usual = {"precision"} if complete.precision == "float32" else set()
    text = complete.model_dump_json(indent=1, exclude_none=True, exclude=usual)
    numbers_in_one_line = re.sub(r"\[(\s+[-+.\de]+,?)+\s+\]", lambda match: re.sub(r"\s+", "", match[0]), text)
    (directory / MANIFEST).write_text(numbers_in_one_line + "\n", encoding="utf-8")


def card(manifest: ModelManifest) -> str:
    """The model card, in Markdown."""
    data, calibration, made = manifest.training_data, manifest.calibration, manifest.provenance
    assert calibration is not None  # every recipe calibrates
    figures = "\n".join(f"| {name} | {value:.6g} |" for name, value in manifest.metrics.items())
    parity = "\n".join(f"| {name} | {value:.2g} |" for name, value in made.parity.items())
    half, differs = "", "between ONNX Runtime and torch"
    if manifest.precision == "float16":
        half, differs = "; computes in float16", "from the graphs in float32"
    held_out = "training images, in turns" if data.images.get("validation") == 0 else "held-out training images"
    calibrated_on = f"{len(calibration.scores):,} {held_out}"
    if made.recalibrated:
        calibrated_on = (
            f"{made.recalibrated.images:,} other images, after training ({made.recalibrated.source} was not)"
        )
    images = ", ".join(f"{count:,} {name}" for name, count in data.images.items())
    return f"""# {manifest.name}, version {manifest.version}

{manifest.description}.

- Architecture: {manifest.architecture}; {manifest.latent_dim} latent dimensions{half}
- Input: {manifest.input.height}x{manifest.input.width}, {manifest.input.channels} channel(s)
- Capabilities: {", ".join(manifest.capabilities)}
- Anomaly score: {calibration.method}, calibrated on {calibrated_on}
- Data: {data.name}; {images}; {data.source}; licence: {data.licence}
- Made {made.created:%Y-%m-%d} from git revision {made.git_revision or "unknown"}
- Trained in {made.minutes} minutes on {made.device}

[The report]({REPORT}/index.html) shows it in pictures.

![What the model does]({REPORT}/reconstructions.png)

## Test figures, through the exported graphs

| figure | value |
| --- | --- |
{figures}

## Largest difference {differs}

| output | difference |
| --- | --- |
{parity}
"""


def git_revision() -> str | None:
    """The commit that the code stands on, with `+` where files differ from it; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


def library_versions() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return versions | {"onnxruntime": onnxruntime.__version__}  # of either distribution
