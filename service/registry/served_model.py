"""Model of the registry: its manifest, and its graphs while they are open."""

from dataclasses import dataclass

from bundle.conformal import ConformalScores
from bundle.manifest import ErrorMapScale, ModelManifest
from service.registry.drift import Drift
from service.registry.loaded_model import LoadedModel
from service.registry.repository import BundleLocation


@dataclass(eq=False)
class Scoring:
    """Calibration of a model's anomaly scores, scale of its heatmaps, and drift of its scores."""

    conformal: ConformalScores
    scale: ErrorMapScale
    drift: Drift  # changes with each request


@dataclass(eq=False)
class ServedModel:
    """A bundle that can serve. Its graphs are open, or are opened when it is used."""

    location: BundleLocation
    manifest: ModelManifest
    digest: str  # SHA-256 of the manifest, which holds those of all files
    scoring: Scoring | None
    provider: str  # that executes its graphs, or is tried first when they are opened
    loaded: LoadedModel | None = None  # None while the graphs are closed
    has_variances: bool | None = None  # if it encodes; None until someone asks
