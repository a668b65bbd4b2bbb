"""Model that is ready to serve."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bundle.conformal import ConformalScores
from bundle.latents import Prior
from bundle.manifest import RESULTS, Capability, ErrorMapScale, GraphName, ModelManifest
from bundle.tensors import TensorName, Tensors
from service.inference.chain import Chain
from service.inference.session import Session
from service.registry.drift import Drift


@dataclass(eq=False)
class Scoring:
    """Calibration of a model's anomaly scores, scale of its heatmaps, and drift of its scores."""

    conformal: ConformalScores
    scale: ErrorMapScale
    drift: Drift  # changes with each request


@dataclass(eq=False)
class LoadedModel:
    """A model whose graphs are open, warmed up and tested."""

    manifest: ModelManifest
    digest: str  # SHA-256 of the manifest, which holds those of all files
    sessions: Mapping[GraphName, Session]
    chain: Chain
    graphs: Mapping[Capability, tuple[GraphName, ...]]  # of each capability, in order
    prior: Prior | None
    scoring: Scoring | None

    @property
    def provider(self) -> str:
        """The execution provider; several if graphs run on different devices."""
        return " and ".join(sorted({session.provider for session in self.sessions.values()}))

    @property
    def scoring_outputs(self) -> tuple[TensorName, ...]:
        """The outputs of the graphs for an anomaly score."""
        return list_outputs("anomaly-score", self.sessions)

    def run(
        self, graphs: Sequence[GraphName], tensors: Tensors, outputs: Sequence[TensorName]
    ) -> Tensors:
        """Run graphs in order, in batches of at most `max_batch`, and return the named outputs."""
        count, max_batch = len(next(iter(tensors.values()))), self.manifest.max_batch
        if max_batch is None or count <= max_batch:
            return self.chain.run(graphs, tensors, outputs)
        parts = [
            {name: tensor[start : start + max_batch] for name, tensor in tensors.items()}
            for start in range(0, count, max_batch)
        ]
        results = [self.chain.run(graphs, part, outputs) for part in parts]
        return {name: np.concatenate([result[name] for result in results]) for name in outputs}

    def has_output(self, graph: GraphName, output: TensorName) -> bool:
        """Return True if the graph has the output."""
        return output in self.sessions[graph].outputs


def list_outputs(
    capability: Capability, sessions: Mapping[GraphName, Session]
) -> tuple[TensorName, ...]:
    """Return the results of a capability; for a score also latent distances, if any, for drift."""
    distances = "latent_distances"
    if capability == "anomaly-score" and distances in sessions["scorer"].outputs:
        return (*RESULTS[capability], distances)
    return RESULTS[capability]
