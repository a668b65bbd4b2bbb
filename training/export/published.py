"""A bundle read back."""

import json
from pathlib import Path
from typing import Any

from bundle.latents import GaussianMixture, NormalPrior
from bundle.manifest import MANIFEST, MixturePrior, ModelManifest
from training.errors import DataError
from training.export.graph_runner import BATCH, Graphs

GOLDEN = "golden.npz"
PRIOR = "prior.npz"
CARD = "README.md"
HISTORY = "history.json"
REPORT = "report"


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
        rows: list[dict[str, Any]] = json.loads(
            (self.directory / HISTORY).read_text(encoding="utf-8")
        )
        return rows


def newest(models: Path, name: str) -> Published:
    """The newest published version of a model. Raises DataError where there is none."""
    versions = [path for path in (models / name).glob("*") if path.name.isdecimal()]
    if not versions:
        raise DataError(f"there is no bundle of {name} in {models}; train it first")
    return Published(max(versions, key=lambda path: int(path.name)))
