"""A model that is ready to serve."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bundle.conformal import ConformalScores
from bundle.latents import Prior
from bundle.manifest import RESULTS, Capability, ErrorMapScale, GraphName, ModelManifest
from bundle.tensors import Tensors
from service.inference.chain import Chain
from service.inference.session import Session
from service.registry.drift import Drift


@dataclass(eq=False)
class Scoring:
    """Meaning of a model's anomaly scores, the brightness of its heatmaps, and the drift of its recent scores."""

    conformal: ConformalScores
    scale: ErrorMapScale
    drift: Drift  # changes with each request


@dataclass(eq=False)
class LoadedModel:
    """A model whose graphs are open, warmed up and tested."""

    manifest: ModelManifest
    sessions: Mapping[GraphName, Session]
    chain: Chain
    graphs: Mapping[Capability, tuple[GraphName, ...]]  # that each capability runs, in order
    prior: Prior | None
    scoring: Scoring | None

    @property
    def provider(self) -> str:
        """The execution provider in use; several if a graph does not run on the device of the others."""
        return " and ".join(sorted({session.provider for session in self.sessions.values()}))

    @property
    def scoring_outputs(self) -> tuple[str, ...]:
        """Outputs of the graphs for an anomaly score."""
        return outputs_of("anomaly-score", self.sessions)

    def run(self, graphs: Sequence[GraphName], tensors: Tensors, outputs: Sequence[str]) -> Tensors:
        """Run the graphs in turn, each on the outputs of those before it; gives the named outputs."""
        count, most = len(next(iter(tensors.values()))), self.manifest.max_batch
        if most is None or count <= most:
            return self.chain.run(graphs, tensors, outputs)
        parts = [
            {name: tensor[start : start + most] for name, tensor in tensors.items()}
            for start in range(0, count, most)
        ]
        results = [self.chain.run(graphs, part, outputs) for part in parts]
        return {name: np.concatenate([result[name] for result in results]) for name in outputs}

    def has_output(self, graph: GraphName, output: str) -> bool:
        return output in self.sessions[graph].outputs


def outputs_of(capability: Capability, sessions: Mapping[GraphName, Session]) -> tuple[str, ...]:
    """The results of a capability; for a score also the latent distances that drift is measured by, if any."""
    distances = "latent_distances"
    if capability == "anomaly-score" and distances in sessions["scorer"].outputs:
        return (*RESULTS[capability], distances)
    return RESULTS[capability]
