"""Writing a bundle, every file in a hidden directory first and then one rename; and reading it again."""

import errno
import importlib.metadata
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from pydantic import BaseModel

from bundle import imaging
from bundle.latents import GaussianMixture, NormalPrior
from bundle.manifest import FEATURES, MANIFEST, InputSpec, MixturePrior, ModelManifest, Provenance, sha256_of
from training.data.dataset import Images
from training.errors import DataError
from training.export.calibration import CROSS_FITTED
from training.export.graph_runner import BATCH, Graphs

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
        self.graphs = Graphs(directory, self.manifest.graphs, self.manifest.max_batch or BATCH)
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


def write_golden(graphs: Graphs, samples: Images, spec: InputSpec, path: Path, count: int | None = None) -> None:
    """Store what the graphs make of a few images, one of them resized: every tensor of the chain by its name.

    Feature maps are left out: they are large, and each graph that takes them is tested on those that it is handed.
    """
    images = samples[: count or (4 if spec.height * spec.width <= LARGE else 2)].copy()
    images[-1] = imaging.fit(imaging.resize(images[-1], (spec.height * 2, spec.width * 2), spec), spec)
    golden = graphs.chain(graphs.names, images=images)
    kept = {name: tensor for name, tensor in golden.items() if not name.startswith(FEATURES)}
    np.savez_compressed(path, allow_pickle=False, **kept)


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
    data, made = manifest.training_data, manifest.provenance
    images = ", ".join(f"{count:,} {name}" for name, count in data.images.items())
    half = "; computes in float16" if manifest.precision == "float16" else ""
    source = manifest.input
    lines = [
        f"- Architecture: {manifest.architecture}; {manifest.latent_dim} latent dimensions{half}",
        f"- Input: {source.height}x{source.width}, {source.channels} channel(s)",
        f"- Capabilities: {', '.join(manifest.capabilities)}",
        *_about_calibration(manifest),
        f"- Data: {data.name}; {images + '; ' if images else ''}{data.source}; licence: {data.licence}",
        *_about_backbone(manifest),
        f"- Made {made.created:%Y-%m-%d} from git revision {made.git_revision or 'unknown'}",
        *([f"- Trained in {made.minutes} minutes on {made.device}"] if made.minutes is not None else []),
    ]
    differs = "from the graphs in float32" if manifest.precision == "float16" else "between ONNX Runtime and torch"
    sections = [
        f"# {manifest.name}, version {manifest.version}",
        f"{manifest.description}.",
        "\n".join(lines),
        *_pictures(manifest),
        *_trials(manifest),
        *_table("## Test figures, through the exported graphs", "figure", "value", manifest.metrics, ".6g"),
        *_table(f"## Largest difference {differs}", "output", "difference", made.parity, ".2g"),
    ]
    return "\n\n".join(sections) + "\n"


def _about_calibration(manifest: ModelManifest) -> list[str]:
    calibration, made = manifest.calibration, manifest.provenance
    if calibration is None:
        return []
    cross_fitted = manifest.training_data.images.get("validation") == 0 or CROSS_FITTED in calibration.method
    held_out = "training images, by cross-fitting" if cross_fitted else "held-out training images"
    calibrated_on = f"{len(calibration.scores):,} {held_out}"
    if again := made.recalibrated:
        calibrated_on = f"{again.images:,} other images, after training ({again.source} was not)"
    weak = manifest.selection.weak if manifest.selection else None
    return [
        f"- Anomaly score: {calibration.method}, calibrated on {calibrated_on}",
        *([f"- **Weak**: {weak}"] if weak else []),
    ]


def _about_backbone(manifest: ModelManifest) -> list[str]:
    weights = manifest.provenance.backbone
    if weights is None:
        return []
    return [
        f"- Backbone: {weights.name}, trained on {weights.trained_on}; weights: {weights.source}; "
        f"licence: {weights.licence}"
    ]


def _pictures(manifest: ModelManifest) -> list[str]:
    if manifest.calibration is None:
        return []
    picture = "heatmaps" if "reconstruct" not in manifest.capabilities else "reconstructions"
    return [f"[The report]({REPORT}/index.html) shows it in pictures.", f"![The model at work]({REPORT}/{picture}.png)"]


def _trials(manifest: ModelManifest) -> list[str]:
    selection = manifest.selection
    if selection is None or not selection.synthetic:
        return []
    kinds = [*next(iter(selection.synthetic.values()))]
    head = f"| | {' | '.join(kinds)} |\n| --- |{' --- |' * len(kinds)}"
    areas, shares = (
        [f"| {name} | {' | '.join(f'{of[kind]:.3f}' for kind in kinds)} |" for name, of in each.items()]
        for each in (selection.synthetic, selection.recall)
    )
    return [
        "## Synthetic anomalies in held-out normal images",
        "AUROC by candidate:",
        "\n".join([head, *areas]),
        "Share found, by false positive rate:",
        "\n".join([head, *shares]),
        *([" ".join(selection.advice)] if selection.advice else []),
    ]


def _table(title: str, name: str, value: str, numbers: Mapping[str, float], form: str) -> list[str]:
    if not numbers:
        return []
    rows = [f"| {key} | {number:{form}} |" for key, number in numbers.items()]
    return [title, "\n".join([f"| {name} | {value} |", "| --- | --- |", *rows])]


def provenance(recipe: BaseModel, revision: str | None, parity: dict[str, float], **others: Any) -> Provenance:
    """Record how a bundle came to be, now and with the libraries that are installed."""
    return Provenance(
        created=datetime.now(UTC).replace(microsecond=0),
        recipe=recipe.model_dump(mode="json"),
        git_revision=revision,
        libraries=library_versions(),
        parity=parity,
        **others,
    )


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
