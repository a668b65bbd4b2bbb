"""Opening of a bundle: verify, open, warm up, test on golden vectors."""

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
from service.registry.loaded_model import LoadedModel, results
from service.registry.repository import BundlePlace

# Of floats, absolute plus relative, and steps of uint8 images; a healthy GPU stays far below them.
GOLDEN_TOLERANCES: Mapping[Precision, tuple[float, int]] = {"float32": (1e-3, 1), "float16": (2e-2, 3)}


def load(place: BundlePlace, manifest: ModelManifest, engine: Engine) -> LoadedModel:
    """Open a bundle's graphs and test them. Raises BundleError, or DeviceError where the device is at fault."""
    sessions = {name: engine.open(place.directory / file) for name, file in manifest.graphs.items()}
    for name, session in sessions.items():
        optional = OPTIONAL_INPUTS.get(name, frozenset())
        unknown = {given for given in session.inputs if given not in optional and not given.startswith(FEATURES)}
        if (
            unknown - INPUTS[name]
            or not set(session.inputs) >= INPUTS[name]
            or not set(session.outputs) >= OUTPUTS[name]
        ):
            raise BundleError(f"the {name} takes {', '.join(session.inputs)} and gives {', '.join(session.outputs)}")
    chains = {capability: _chain_of(capability, sessions) for capability in manifest.capabilities}
    golden = _golden(place.directory / manifest.golden, manifest)
    known = dict(golden)
    for name in (name for name in GRAPHS if name in sessions):
        # The scorer computes in float32 in either precision.
        known = _test(name, sessions[name], golden, "float32" if name == "scorer" else manifest.precision, known)
    conformal = ConformalScores(manifest.calibration) if manifest.calibration else None
    chain = engine.chain(sessions, manifest.max_batch)
    for capability, graphs in chains.items():
        chain.warm_up(graphs, [STARTS.get(capability, "images")], results(capability, sessions))
    drift = Drift(conformal, manifest.calibration.latent_deciles) if manifest.calibration and conformal else None
    return LoadedModel(manifest, sessions, chain, chains, _prior(manifest, place.directory), conformal, drift)


def _chain_of(capability: Capability, sessions: Mapping[GraphName, Session]) -> tuple[GraphName, ...]:
    """The graphs that give a capability's results, and those that give these graphs their inputs, in order.

    Raises BundleError where a graph of them takes what none before it gives.
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


def _prior(manifest: ModelManifest, directory: Path) -> Prior | None:
    if manifest.prior is None:
        return None
    if not isinstance(manifest.prior, MixturePrior):
        return NormalPrior(manifest.latent_dim)
    try:
        mixture = GaussianMixture.load(directory / manifest.prior.file)
    except Exception as error:  # numpy raises nearly anything on a damaged archive
        raise BundleError(f"{manifest.prior.file} is not a Gaussian mixture: {error}") from error
    if mixture.means.shape[1] != manifest.latent_dim:
        raise BundleError(f"{manifest.prior.file} has {mixture.means.shape[1]} dimensions, not {manifest.latent_dim}")
    return mixture


def _golden(path: Path, manifest: ModelManifest) -> Tensors:
    """The golden tensors. Raises BundleError where they are not of the manifest's shapes."""
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
            raise BundleError(f"{path.name} holds {name} of shape {golden[name].shape[1:]}; the manifest says {shape}")
    return golden


def _test(name: GraphName, session: Session, golden: Tensors, precision: Precision, known: Tensors) -> Tensors:
    """Run a graph on what is known, and compare what it gives with the golden tensors; gives all that is known then.

    Feature maps are not stored: the next graph takes them as they were computed. Raises BundleError where
    an answer is another than the golden one.
    """
    if missing := {*session.inputs} - known.keys():
        raise BundleError(f"the golden vectors lack {', '.join(sorted(missing))} of the {name}")
    try:
        answers = session.run(known, session.outputs)
    except Exception as error:  # ONNX Runtime's exceptions share no base class but this one.
        raise BundleError(f"the {name} cannot be run on its golden vectors: {error}") from error
    for output, found in answers.items():
        if output not in golden:
            if not output.startswith(FEATURES):
                raise BundleError(f"the golden vectors lack {output} of the {name}")
        elif not _same(found, golden[output], *GOLDEN_TOLERANCES[precision]):
            raise BundleError(f"the {name} answers its golden vectors wrongly on {session.provider}: see {output}")
    return answers | known


def _same(found: Array, expected: Array, tolerance: float, steps: int) -> bool:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    if found.dtype == np.uint8:
        return bool((np.abs(found.astype(np.int16) - expected) <= steps).all())
    return bool(np.allclose(found, expected, rtol=tolerance, atol=tolerance))
