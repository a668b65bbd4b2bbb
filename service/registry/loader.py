"""Loading of a bundle: read and verify it, open its graphs, test them on golden vectors, warm them up."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bundle.conformal import ConformalScores
from bundle.errors import BundleError
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
from service.inference.engine import Engine
from service.inference.session import Session
from service.registry.drift import Drift
from service.registry.loaded_model import LoadedModel, Scoring, outputs_of
from service.registry.repository import BundleLocation, ModelRepository

# Of floats, absolute plus relative, and steps of uint8 images; a healthy GPU stays far below them.
GOLDEN_TOLERANCES: Mapping[Precision, tuple[float, int]] = {
    "float32": (1e-3, 1),
    "float16": (2e-2, 3),
}

Sessions = Mapping[GraphName, Session]


class Loader:
    """Loads the bundles of a repository on an engine's device."""

    def __init__(self, repository: ModelRepository, engine: Engine) -> None:
        self._repository, self._engine = repository, engine

    def load(self, location: BundleLocation) -> LoadedModel:
        """Raises BundleError if the bundle is damaged, DeviceError if the device fails."""
        manifest = self._repository.read(location)
        directory = location.directory
        sessions = {
            name: self._engine.open(directory / file) for name, file in manifest.graphs.items()
        }
        for name, session in sessions.items():
            _check_tensors(name, session)
        graphs = {
            capability: _chain_of(capability, sessions) for capability in manifest.capabilities
        }
        _test(sessions, _golden(directory / manifest.golden, manifest), manifest.precision)
        chain = self._engine.chain(sessions, manifest.max_batch)
        for capability, names in graphs.items():
            start = STARTS.get(capability, "images")
            chain.warm_up(names, [start], outputs_of(capability, sessions))
        prior = _prior(manifest, directory)
        return LoadedModel(manifest, sessions, chain, graphs, prior, _scoring(manifest))


def _check_tensors(name: GraphName, session: Session) -> None:
    """Raise BundleError if a graph does not have the inputs and outputs of its kind."""
    inputs, required, optional = (
        {*session.inputs},
        INPUTS[name],
        OPTIONAL_INPUTS.get(name, frozenset()),
    )
    other = {given for given in inputs - required - optional if not given.startswith(FEATURES)}
    if other or not inputs >= required or not {*session.outputs} >= OUTPUTS[name]:
        takes, gives = ", ".join(session.inputs), ", ".join(session.outputs)
        raise BundleError(f"the {name} takes {takes} and gives {gives}")


def _chain_of(capability: Capability, sessions: Sessions) -> tuple[GraphName, ...]:
    """The graphs that give a capability's results, and those that give these graphs their inputs, in order.

    Raises BundleError if one of them takes a tensor that none before it gives.
    """
    known, wanted = {STARTS.get(capability, "images")}, {*RESULTS[capability]}
    chain: list[GraphName] = []
    for name in (name for name in reversed(GRAPHS) if name in sessions):
        if (wanted - known) & {*sessions[name].outputs}:
            wanted = wanted - {*sessions[name].outputs} | {*sessions[name].inputs}
            chain.insert(0, name)
    if missing := wanted - known:
        raise BundleError(f"{capability} needs {', '.join(sorted(missing))}, which no graph gives")
    return tuple(chain)


def _scoring(manifest: ModelManifest) -> Scoring | None:
    calibration = manifest.calibration
    if calibration is None:
        return None
    conformal = ConformalScores(calibration)
    drift = Drift(conformal, calibration.latent_deciles)
    return Scoring(conformal, calibration.error_map, drift)


def _prior(manifest: ModelManifest, directory: Path) -> Prior | None:
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


def _golden(path: Path, manifest: ModelManifest) -> Tensors:
    """The golden tensors. Raises BundleError if they are not of the manifest's shapes."""
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
                f"{path.name} holds {name} of shape {found}; the manifest says {shape}"
            )
    return golden


def _test(sessions: Sessions, golden: Tensors, precision: Precision) -> None:
    """Run the graphs in turn on the golden tensors and on feature maps. Raises BundleError if an output differs.

    Feature maps are not stored: the next graph takes them as they were computed.
    """
    known = dict(golden)
    for name in (name for name in GRAPHS if name in sessions):
        outputs = _run_golden(name, sessions[name], known)
        of_graph: Precision = "float32" if name == "scorer" else precision  # a scorer stays float32
        wrong = _find_wrong(outputs, golden, *GOLDEN_TOLERANCES[of_graph])
        if wrong in golden:
            provider = sessions[name].provider
            raise BundleError(
                f"the {name} answers its golden vectors wrongly on {provider}: see {wrong}"
            )
        if wrong is not None:
            raise BundleError(f"the golden vectors lack {wrong} of the {name}")
        known = outputs | known


def _find_wrong(outputs: Tensors, golden: Tensors, tolerance: float, steps: int) -> str | None:
    """The first output that differs from the golden one, or has none though it is not a feature map."""
    for name, found in outputs.items():
        if name in golden:
            if not _is_same(found, golden[name], tolerance, steps):
                return name
        elif not name.startswith(FEATURES):
            return name
    return None


def _run_golden(name: GraphName, session: Session, known: Tensors) -> Tensors:
    if missing := {*session.inputs} - known.keys():
        raise BundleError(f"the golden vectors lack {', '.join(sorted(missing))} of the {name}")
    try:
        return session.run(known, session.outputs)
    except Exception as error:  # ONNX Runtime's exceptions share no base class but this one.
        raise BundleError(f"the {name} cannot be run on its golden vectors: {error}") from error


def _is_same(found: Array, expected: Array, tolerance: float, steps: int) -> bool:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    if found.dtype == np.uint8:
        return bool((np.abs(found.astype(np.int16) - expected) <= steps).all())
    return bool(np.allclose(found, expected, rtol=tolerance, atol=tolerance))
