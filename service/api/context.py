"""The context of one request, from the first middleware to the response."""

from dataclasses import dataclass, field

from starlette.types import Scope

from service.operations import Timings
from service.telemetry.metrics import OTHER


@dataclass(slots=True)
class RequestContext:
    """Identity and times of a request, and the labels of its metrics: operation and model."""

    request_id: str
    timings: Timings = field(default_factory=Timings)
    labels: tuple[str, str] = OTHER

    def attach(self, scope: Scope) -> None:
        scope.setdefault("state", {})["context"] = self


def context_of(scope: Scope) -> RequestContext:
    """The context of a request that has passed the middleware."""
    context: RequestContext = scope["state"]["context"]
    return context
