"""Context of one request, from the first middleware to the response."""

from dataclasses import dataclass, field

from starlette.types import Scope

from service.operations import Timings
from service.telemetry.metrics import OTHER_LABELS


@dataclass(slots=True)
class RequestContext:
    """ID, timings and metric labels (operation and model) of a request."""

    request_id: str
    timings: Timings = field(default_factory=Timings)
    labels: tuple[str, str] = OTHER_LABELS
    bundle: str | None = None  # digest of the bundle that answers
    error: str | None = None  # code of the error that answers
    rejection: str | None = None  # reason of a request that is not admitted

    def attach(self, scope: Scope) -> None:
        """Store the context in the scope of its request."""
        scope.setdefault("state", {})["context"] = self


def get_context(scope: Scope) -> RequestContext:
    """Return the context of a request that has passed the middleware."""
    context: RequestContext = scope["state"]["context"]
    return context
