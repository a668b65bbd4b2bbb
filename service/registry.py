"""Which models are loaded: each opened, warmed, and tested on its golden vectors before it serves."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.anomaly import ConformalScores
from service.errors import BundleError, ModelNotFound, ModelNotReady, VersionNotFound
from service.inference.session import Array, Engine, Session, Tensors
from service.latents import GaussianMixture, NormalPrior, Prior
from service.manifest import GraphName, MixturePrior, ModelManifest
from service.repository import BundlePlace, ModelRepository

logger = logging.getLogger(__name__)

GOLDEN_TOLERANCE = 1e-3  # of floats, absolute plus relative; a healthy GPU stays a hundred times below it
GOLDEN_STEPS = 1  # of uint8 images


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to serve."""

    manifest: ModelManifest
    sessions: Mapping[GraphName, Session]
    prior: Prior | None
    conformal: ConformalScores | None

    @property
    def provider(self) -> str:
        """The execution provider that answers."""
        return next(iter(self.sessions.values())).provider

    def run(self, graphs: Sequence[GraphName], tensors: Mapping[str, Array], outputs: Sequence[str]) -> Tensors:
        """Run the graphs in turn, each on what those before it gave; give the outputs that were asked for."""
        known: Tensors = dict(tensors)
        for position, name in enumerate(graphs):
            session = self.sessions[name]
            later = {given for graph in graphs[position + 1 :] for given in self.sessions[graph].inputs}
            known |= session.run(known, [output for output in session.outputs if output in later or output in outputs])
        return {name: known[name] for name in outputs}

    def gives(self, graph: GraphName, output: str) -> bool:
        return output in self.sessions[graph].outputs


def load(place: BundlePlace, manifest: ModelManifest, engine: Engine) -> LoadedModel:
    """Open a bundle's graphs and test them. Raises BundleError, or DeviceError where the device is at fault."""
    sessions = {name: engine.open(place.directory / file) for name, file in manifest.graphs.items()}
    _test(sessions, place.directory / manifest.golden)
    return LoadedModel(
        manifest,
        sessions,
        _prior(manifest, place.directory),
        ConformalScores(manifest.calibration) if manifest.calibration else None,
    )


def _prior(manifest: ModelManifest, directory: Path) -> Prior | None:
    if manifest.prior is None:
        return None
    if not isinstance(manifest.prior, MixturePrior):
        return NormalPrior(manifest.latent_dim)
    try:
        return GaussianMixture.load(directory / manifest.prior.file)
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(f"{manifest.prior.file} is not a Gaussian mixture: {error}") from error


def _test(sessions: Mapping[GraphName, Session], path: Path) -> None:
    """Run every graph on its golden inputs. Raises BundleError where an answer is another than the golden one."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            golden = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError) as error:
        raise BundleError(f"{path.name} holds no golden vectors: {error}") from error
    for graph, session in sessions.items():
        if missing := {*session.inputs, *session.outputs} - golden.keys():
            raise BundleError(f"{path.name} lacks {', '.join(sorted(missing))} of the {graph}")
        for name, found in session.run(golden, session.outputs).items():
            if not _same(found, golden[name]):
                raise BundleError(f"the {graph} answers its golden vectors wrongly on {session.provider}: see {name}")


def _same(found: Array, expected: Array) -> bool:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    if found.dtype == np.uint8:
        return bool((np.abs(found.astype(np.int16) - expected) <= GOLDEN_STEPS).all())
    return bool(np.allclose(found, expected, rtol=GOLDEN_TOLERANCE, atol=GOLDEN_TOLERANCE))


class ModelRegistry:
    """The loaded models by name and version, and why others are not."""

    def __init__(self) -> None:
        self._loaded: dict[str, dict[int, LoadedModel]] = {}
        self._failed: dict[str, dict[int, str]] = {}

    def load_all(self, repository: ModelRepository, engine: Engine) -> None:
        """Load every bundle; one that fails is reported and left out. Raises DeviceError where the device fails."""
        for place in repository.places():
            try:
                model = load(place, repository.read(place), engine)
            except BundleError as error:
                self._failed.setdefault(place.name, {})[place.version] = str(error)
                logger.error("%s is left out: %s", place, error)
            else:
                self._loaded.setdefault(place.name, {})[place.version] = model
                logger.info("%s is ready on %s", place, model.provider)

    def get(self, name: str, version: str | None = None) -> LoadedModel:
        """A version of a model, or its newest that is ready.

        Raises ModelNotFound, VersionNotFound, or ModelNotReady where it exists but could not be loaded.
        """
        versions, failed = self._loaded.get(name, {}), self._failed.get(name, {})
        if not versions and not failed:
            raise ModelNotFound(f"there is no model {name!r}; there are: {', '.join(self.names()) or 'none'}")
        if version is None:
            if not versions:
                raise ModelNotReady(f"model {name!r} could not be loaded; the log and `check` say why")
            return versions[max(versions)]
        number = int(version) if version.isascii() and version.isdecimal() and len(version) < 10 else None
        if number in versions:
            return versions[number]
        if number in failed:
            raise ModelNotReady(f"version {version} of {name!r} could not be loaded; the log and `check` say why")
        raise VersionNotFound(f"{name!r} has no version {version!r}; it has: {', '.join(map(str, sorted(versions)))}")

    def names(self) -> list[str]:
        """The names of the models that have a version ready."""
        return sorted(self._loaded)

    def versions(self, name: str) -> list[int]:
        """The versions of a model that are ready."""
        return sorted(self._loaded.get(name, {}))

    def newest(self) -> list[LoadedModel]:
        """The newest ready version of each model."""
        return [self.get(name) for name in self.names()]

    def failures(self) -> dict[str, str]:
        """Why bundles are left out, by `name/version`."""
        failed = self._failed.items()
        return {f"{name}/{version}": why for name, versions in failed for version, why in versions.items()}
