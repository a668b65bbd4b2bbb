"""Context of one request, from the first middleware to the response."""

from dataclasses import dataclass, field

from starlette.types import Scope

from service.operations import Timings
from service.telemetry.metrics import OTHER_LABELS

DISCONNECTED = 499  # status of a request whose client disconnects before a response begins


@dataclass(slots=True)
class RequestContext:
    """ID, timings, metric labels (operation and model) and status of a request."""

    request_id: str
    timings: Timings = field(default_factory=Timings)
    labels: tuple[str, str] = OTHER_LABELS
    bundle: str | None = None  # digest of the bundle that answers
    error: str | None = None  # code of the error that answers
    rejection: str | None = None  # reason of a request that is not admitted
    status: int = DISCONNECTED  # until a response begins

    @property
    def response_started(self) -> bool:
        """True once the response has begun."""
        return self.status != DISCONNECTED

    def attach(self, scope: Scope) -> None:
        """Store the context in the scope of its request."""
        scope.setdefault("state", {})["context"] = self


def get_context(scope: Scope) -> RequestContext:
    """Return the context of a request that has passed the middleware."""
    context: RequestContext = scope["state"]["context"]
    return context
