"""Loader of bundles: reads manifests, and opens graphs, which it verifies, tests and warms up."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bundle.conformal import ConformalScores
from bundle.errors import BundleError, BundleUnavailable
from bundle.latents import GaussianMixture, NormalPrior, Prior
from bundle.manifest import (
    FEATURES,
    GRAPHS,
    INPUTS,
    OPTIONAL_INPUTS,
    OUTPUTS,
    RESULTS,
    STARTS,
    Capability,
    GraphName,
    MixturePrior,
    ModelManifest,
    Precision,
)
from bundle.tensors import Array, Tensors
from service.errors import DeviceError
from service.inference.session import Session
from service.registry.drift import DRIFT_OUTPUTS, Drift
from service.registry.loaded_model import LoadedModel
from service.registry.repository import BundleLocation, Repository
from service.registry.served_model import Scoring, ServedModel
from service.registry.shared_sessions import SharedSessions

logger = logging.getLogger(__name__)

# For floats, absolute plus relative, and steps of uint8 images; a correct GPU stays far below.
GOLDEN_TOLERANCES: Mapping[Precision, tuple[float, int]] = {
    "float32": (1e-3, 1),
    "float16": (2e-2, 3),
}

Sessions = Mapping[GraphName, Session]


class Loader:
    """Indexes the bundles of a repository, and opens their graphs."""

    def __init__(self, repository: Repository, sessions: SharedSessions) -> None:
        self._repository, self._sessions = repository, sessions

    def index(self, location: BundleLocation) -> ServedModel:
        """Read a bundle's manifest, without its other files. Raises BundleError."""
        with _as_bundle_error(location):
            manifest, digest = self._repository.read_manifest(location)
            provider = self._sessions.engine.provider
            return ServedModel(location, manifest, digest, _build_scoring(manifest), provider)

    def fetch(self, model: ServedModel) -> None:
        """Verify the files of a bundle, which are fetched if they are in a store.

        Raises BundleError if it is damaged or has changed.
        """
        with _as_bundle_error(model.location):
            _, digest = self._repository.fetch(model.location)
            if digest != model.digest:
                raise BundleError(
                    "it has changed since it was listed; restart, or set AE_MODEL_CONTROL"
                )

    def open(self, model: ServedModel) -> LoadedModel:
        """Open the graphs of a verified bundle, test them and warm them up.

        Raises BundleError if it is damaged, DeviceError if the device fails.
        """
        with _as_bundle_error(model.location):
            return self._open(model.manifest, model.location.directory)

    def _open(self, manifest: ModelManifest, directory: Path) -> LoadedModel:
        sessions = {
            name: self._sessions.open(directory / file, manifest.files[file])
            for name, file in manifest.graphs.items()
        }
        for name, session in sessions.items():
            _check_tensors(name, session)
        graphs = {
            capability: _select_chain(capability, sessions) for capability in manifest.capabilities
        }
        _test(sessions, _read_golden(directory / manifest.golden, manifest), manifest.precision)
        chain = self._sessions.engine.chain(sessions, manifest.max_batch)
        loaded = LoadedModel(manifest, sessions, chain, graphs, _load_prior(manifest, directory))
        for capability, names in graphs.items():
            start = STARTS.get(capability, "images")
            chain.warm_up(names, [start], loaded.find_outputs(capability, DRIFT_OUTPUTS))
        return loaded

    def estimate(self, model: ServedModel) -> int:
        """Return the bytes of memory that opening a model takes."""
        directory, files = model.location.directory, model.manifest.files
        return sum(
            self._sessions.estimate(directory / file, files[file])
            for file in model.manifest.graphs.values()
        )


@contextmanager
def _as_bundle_error(location: BundleLocation) -> Iterator[None]:
    """Raise BundleError for unforeseen errors: a fault of one bundle must not concern others."""
    try:
        yield
    except (BundleError, DeviceError):
        raise
    except MemoryError as error:
        raise BundleUnavailable("there is too little memory") from error
    except Exception as error:
        logger.exception("unforeseen error in %s", location)
        raise BundleError(f"{type(error).__name__}: {error}") from error


def _check_tensors(name: GraphName, session: Session) -> None:
    """Raise BundleError if a graph lacks inputs or outputs of its name, or has other inputs."""
    inputs, required = {*session.inputs}, INPUTS[name]
    optional = OPTIONAL_INPUTS.get(name, frozenset())
    other = {tensor for tensor in inputs - required - optional if not tensor.startswith(FEATURES)}
    if other or not inputs >= required or not {*session.outputs} >= OUTPUTS[name]:
        names = f"inputs {', '.join(session.inputs)} and outputs {', '.join(session.outputs)}"
        raise BundleError(f"the {name} has the {names}; publish the bundle again")


def _select_chain(capability: Capability, sessions: Sessions) -> tuple[GraphName, ...]:
    """Return the graphs that compute a capability's results from its inputs, in order.

    Raises BundleError if an input of a graph is no output of a graph before it.
    """
    known, needed = {STARTS.get(capability, "images")}, {*RESULTS[capability]}
    chain: list[GraphName] = []
    for name in (name for name in reversed(GRAPHS) if name in sessions):
        if (needed - known) & {*sessions[name].outputs}:
            needed = needed - {*sessions[name].outputs} | {*sessions[name].inputs}
            chain.insert(0, name)
    if missing := needed - known:
        raise BundleError(f"{capability} needs {', '.join(sorted(missing))}, which no graph gives")
    return tuple(chain)


def _build_scoring(manifest: ModelManifest) -> Scoring | None:
    calibration = manifest.calibration
    if calibration is None:
        return None
    conformal = ConformalScores(calibration)
    drift = Drift(conformal, calibration.latent_deciles)
    return Scoring(conformal, calibration.error_map, drift)


def _load_prior(manifest: ModelManifest, directory: Path) -> Prior | None:
    if manifest.prior is None:
        return None
    if not isinstance(manifest.prior, MixturePrior):
        return NormalPrior(manifest.latent_dim)
    file = manifest.prior.file
    try:
        mixture = GaussianMixture.load(directory / file)
    except Exception as error:  # numpy raises nearly anything on a damaged archive
        raise BundleError(f"{file} is not a Gaussian mixture: {error}") from error
    if mixture.means.shape[1] != manifest.latent_dim:
        raise BundleError(
            f"{file} has {mixture.means.shape[1]} dimensions, not {manifest.latent_dim}"
        )
    return mixture


def _read_golden(path: Path, manifest: ModelManifest) -> Tensors:
    """Read the golden vectors. Raises BundleError if shapes differ from the manifest."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            golden = {name: arrays[name] for name in arrays.files}
    except Exception as error:  # numpy raises nearly anything on a damaged archive
        raise BundleError(f"{path.name} holds no golden vectors: {error}") from error
    shapes = {
        "images": manifest.input.shape,
        "latents": (manifest.latent_dim,),
        "probabilities": (len(manifest.classes),),
    }
    for name, shape in shapes.items():
        if name in golden and golden[name].shape[1:] != shape:
            found = golden[name].shape[1:]
            raise BundleError(
                f"{path.name} holds {name} of shape {found}; the manifest requires {shape}"
            )
    return golden


def _test(sessions: Sessions, golden: Tensors, precision: Precision) -> None:
    """Run the graphs on golden vectors, and compare. Raises BundleError if an output differs.

    Feature maps are not stored, so that the next graph takes them as computed.
    """
    known = dict(golden)
    for name in (name for name in GRAPHS if name in sessions):
        outputs = _run_golden(name, sessions[name], known)
        of_graph: Precision = "float32" if name == "scorer" else precision  # a scorer is float32
        for output, tensor in outputs.items():
            if output not in golden and not output.startswith(FEATURES):
                raise BundleError(f"the golden vectors lack {output} of the {name}")
            if output in golden and not _is_same(tensor, golden[output], of_graph):
                provider = sessions[name].provider
                raise BundleError(
                    f"the {name} gives wrong {output} for its golden vectors on {provider}"
                )
        known = outputs | known


def _run_golden(name: GraphName, session: Session, known: Tensors) -> Tensors:
    if missing := {*session.inputs} - known.keys():
        raise BundleError(f"the golden vectors lack {', '.join(sorted(missing))} of the {name}")
    try:
        return session.run(known, session.outputs)
    except Exception as error:  # ONNX Runtime's exceptions share no base class but this one.
        raise BundleError(f"the {name} cannot be run on its golden vectors: {error}") from error


def _is_same(found: Array, expected: Array, precision: Precision) -> bool:
    tolerance, steps = GOLDEN_TOLERANCES[precision]
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    if found.dtype == np.uint8:
        return bool((np.abs(found.astype(np.int16) - expected) <= steps).all())
    return bool(np.allclose(found, expected, rtol=tolerance, atol=tolerance))
