"""Exceptions of the domain. `service.api.errors` holds the HTTP status of each.

DomainError
├── ItemError                    one image or latent vector of a request is invalid
│   ├── InvalidImage             undecodable, truncated, or of the wrong shape
│   ├── ImageTooLarge            more pixels than the limit
│   ├── UnsupportedFormat        the file format is unsupported
│   └── InvalidLatents           of another length, or not finite
├── InvalidItems                 some items of a request are invalid
├── InvalidParameter             an option or count out of range
├── TooManyImages                more images than a request may hold
├── ModelNotFound
├── VersionNotFound
├── OperationNotSupported        the model was not trained for it
├── ExamplesNotFound             the bundle holds no test images
├── ModelNotReady                the model exists, but cannot serve now
├── Rejected                     the request is not admitted now
│   ├── Overloaded               too many images or bytes in flight
│   ├── RateLimited              too many requests of an API key
│   └── ShuttingDown             no new requests are admitted
├── DeadlineExceeded             the request did not run before its timeout
├── BundleError                  a bundle is damaged, incomplete, or gives wrong results
│   └── BundleUnavailable        a bundle or its store cannot be read now
├── DeviceError                  the requested device is unavailable
│   └── DeviceLost               the device failed while it served, and does not recover
└── BulkError                    scoring files cannot continue; subclasses are in `service.bulk`
"""

from collections.abc import Sequence
from typing import Literal

from bundle.errors import DomainError, ItemError


class InvalidLatents(ItemError):
    """A latent vector has another length than the model's, or is not finite."""


class InvalidItems(DomainError):
    """Some items of a request are invalid; `errors` holds each with its index in the request."""

    def __init__(self, errors: Sequence[tuple[int, ItemError]]) -> None:
        self.errors = tuple(errors)
        index, first = self.errors[0]
        more = f" (and {len(self.errors) - 1} more)" if len(self.errors) > 1 else ""
        super().__init__(f"item {index}: {first}{more}")


class TooManyImages(DomainError):
    """A request or its response would hold more images or latents than the limit."""


class ModelNotFound(DomainError):
    """No model has the name."""


class VersionNotFound(DomainError):
    """The model has no such version."""


class OperationNotSupported(DomainError):
    """The model was not trained for the operation."""


class ExamplesNotFound(DomainError):
    """The bundle holds no test images."""


class ModelNotReady(DomainError):
    """The model exists, but cannot be opened now, or is damaged."""


class Rejected(DomainError):
    """A request is not admitted now; `reason` names the limit, for the metrics."""

    reason = ""


class Overloaded(Rejected):
    """A request exceeds the limits of images or bytes in flight."""

    def __init__(self, detail: str, reason: Literal["images", "bytes", "share"]) -> None:
        super().__init__(detail)
        self.reason = reason


class RateLimited(Rejected):
    """An API key has sent its requests of a second."""

    reason = "rate"


class ShuttingDown(Rejected):
    """The service shuts down."""

    reason = "shutdown"


class DeadlineExceeded(DomainError):
    """A request was not received or did not run before its timeout."""


class DeviceError(DomainError):
    """The requested device is unavailable."""


class DeviceLost(DeviceError):
    """The device failed while it served; only a new process can use it again."""


class BulkError(DomainError):
    """Scoring files cannot continue."""
