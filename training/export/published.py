"""A published bundle, read back."""

import json
from pathlib import Path
from typing import Any

from bundle.latents import GaussianMixture, NormalPrior
from bundle.manifest import MANIFEST, Calibration, MixturePrior, ModelManifest
from training.errors import DataError
from training.export.graph_runner import BATCH_IMAGES, Graphs

GOLDEN = "golden.npz"
PRIOR = "prior.npz"
CARD = "README.md"
HISTORY = "history.json"
REPORT = "report"


class PublishedBundle:
    """The bundle in a directory: its manifest, its graphs and its prior."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.manifest = ModelManifest.model_validate_json((directory / MANIFEST).read_bytes())
        self.graphs = Graphs(
            directory, self.manifest.graphs, self.manifest.max_batch or BATCH_IMAGES
        )
        prior = self.manifest.prior
        self.prior = (
            GaussianMixture.load(directory / prior.file)
            if isinstance(prior, MixturePrior)
            else NormalPrior(self.manifest.latent_dim)
        )

    def require_calibration(self) -> Calibration:
        """The calibration. Raises DataError if the model has no anomaly score."""
        if self.manifest.calibration is None:
            raise DataError(f"{self.manifest.name} has no anomaly score: name a model with one")
        return self.manifest.calibration

    def history(self) -> list[dict[str, Any]]:
        """The rows that were tracked in training, one for each epoch."""
        rows: list[dict[str, Any]] = json.loads(
            (self.directory / HISTORY).read_text(encoding="utf-8")
        )
        return rows


def load_newest(models: Path, name: str) -> PublishedBundle:
    """Load the newest published version of a model. Raises DataError if there is none."""
    home = models / name
    if not home.is_dir() or not (versions := list_versions(home)):
        raise DataError(f"there is no bundle of {name} in {models}; train it first")
    return PublishedBundle(home / str(max(versions)))


def list_versions(home: Path) -> list[int]:
    """List the published versions of a model, by its directory."""
    return [int(path.name) for path in home.iterdir() if path.name.isdecimal()]
