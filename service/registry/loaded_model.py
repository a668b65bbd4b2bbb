"""A model that is ready to serve."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bundle.conformal import ConformalScores
from bundle.latents import Prior
from bundle.manifest import (
    RESULTS,
    Capability,
    GraphName,
    ModelManifest,
)
from bundle.tensors import Tensors
from service.inference.chain import Chain
from service.inference.session import Session
from service.registry.drift import Drift


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to serve."""

    manifest: ModelManifest
    sessions: Mapping[GraphName, Session]
    chain: Chain
    graphs: Mapping[Capability, tuple[GraphName, ...]]  # that each capability runs, in order
    prior: Prior | None
    conformal: ConformalScores | None
    drift: Drift | None  # where there is a calibration

    @property
    def provider(self) -> str:
        """The execution provider that answers; several where a graph could not be had on the device of the others."""
        return " and ".join(sorted({session.provider for session in self.sessions.values()}))

    def run(self, graphs: Sequence[GraphName], tensors: Tensors, outputs: Sequence[str]) -> Tensors:
        """Run the graphs in turn, each on what those before it gave; give the outputs that were asked for."""
        count, most = len(next(iter(tensors.values()))), self.manifest.max_batch
        if most is None or count <= most:
            return self.chain.run(graphs, tensors, outputs)
        parts = [
            self.chain.run(graphs, {name: each[start : start + most] for name, each in tensors.items()}, outputs)
            for start in range(0, count, most)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in outputs}

    def results(self, capability: Capability) -> tuple[str, ...]:
        """What is asked of the graphs for a capability: its results, and what drift is followed by."""
        return results(capability, self.sessions)

    def gives(self, graph: GraphName, output: str) -> bool:
        return output in self.sessions[graph].outputs


def results(capability: Capability, sessions: Mapping[GraphName, Session]) -> tuple[str, ...]:
    followed = "latent_distances"
    given = capability == "anomaly-score" and followed in sessions["scorer"].outputs
    return (*RESULTS[capability], followed) if given else RESULTS[capability]
