"""Open graphs of a model."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from bundle.latents import Prior
from bundle.manifest import RESULTS, Capability, GraphName, ModelManifest
from bundle.tensors import TensorName, Tensors
from service.inference.chain import Chain, select_outputs
from service.inference.session import Session
from service.scheduling.batcher import SharedRun


class Plan(NamedTuple):
    """A run of graphs, and what only one thread at a time may use."""

    run: Callable[[Tensors], Tensors]
    shared: SharedRun | None
    uses: frozenset[Hashable]


@dataclass(eq=False)
class LoadedModel:
    """A model whose graphs are open, tested and warmed up."""

    manifest: ModelManifest
    sessions: Mapping[GraphName, Session]
    chain: Chain
    graphs: Mapping[Capability, tuple[GraphName, ...]]  # of each capability, in order
    prior: Prior | None
    _plans: dict[Hashable, Plan] = field(default_factory=dict)
    _outputs: dict[Hashable, tuple[TensorName, ...]] = field(default_factory=dict)

    @property
    def provider(self) -> str:
        """The execution provider; several if graphs run on different devices."""
        return " and ".join(sorted({session.provider for session in self.sessions.values()}))

    def plan(self, graphs: tuple[GraphName, ...], outputs: tuple[TensorName, ...]) -> Plan:
        """Return the run of graphs for outputs, which is made at the first call."""
        key = graphs, outputs
        if key not in self._plans:
            self._plans[key] = self._make_plan(graphs, outputs)
        return self._plans[key]

    def _make_plan(self, graphs: tuple[GraphName, ...], outputs: tuple[TensorName, ...]) -> Plan:
        files = self.manifest.files
        digests = [files[self.manifest.graphs[graph]] for graph in graphs]
        shared = None
        if len(graphs) > 1 and self.chain.shares:
            _, first = next(select_outputs(self.sessions, graphs, outputs))
            shared = SharedRun(
                (digests[0], *first),
                partial(self.chain.run, graphs[:1], outputs=first),
                partial(self.chain.run, graphs[1:], outputs=outputs),
            )
        run = partial(self.chain.run, graphs, outputs=outputs)
        return Plan(run, shared, frozenset((self.manifest.name, *digests)))

    def find_outputs(
        self, capability: Capability, optional: tuple[TensorName, ...] = ()
    ) -> tuple[TensorName, ...]:
        """Return the results of a capability, and the optional outputs that its graphs have."""
        key = capability, optional
        if key not in self._outputs:
            sessions = [self.sessions[graph] for graph in self.graphs[capability]]
            given = {output for session in sessions for output in session.outputs}
            extra = tuple(output for output in optional if output in given)
            self._outputs[key] = (*RESULTS[capability], *extra)
        return self._outputs[key]
