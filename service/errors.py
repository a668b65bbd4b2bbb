"""The domain's exceptions. The HTTP status of each stands in `service.api.errors`.

DomainError
├── ItemError                    one image or latent vector of a request is at fault
│   ├── InvalidImage             undecodable, truncated, or of the wrong shape
│   ├── ImageTooLarge            more pixels than the limit
│   ├── UnsupportedFormat        a file format that is not read here
│   └── InvalidLatents           wrong length, NaN or infinity
├── InvalidItems                 the ItemErrors of one request, each with its index
├── InvalidParameter             an option or count out of range
├── TooManyImages                more images than one request may hold
├── ModelNotFound
├── VersionNotFound
├── OperationNotSupported        the model was not trained for it
├── ModelNotReady                the model exists, but could not be loaded
├── Overloaded                   the queue is full
├── DeadlineExceeded             the request's time was up before it ran
├── ShuttingDown                 no new work is taken
├── BundleError                  a bundle is damaged, incomplete, or answers wrongly
├── DeviceError                  the device that was asked for cannot be had
└── BulkError                    scoring files cannot go on; its kinds stand in `service.bulk`
"""

from collections.abc import Sequence

from bundle.errors import DomainError, ItemError


class InvalidLatents(ItemError):
    pass


class InvalidItems(DomainError):
    """Some items of a request are at fault; `errors` holds them by their index in the request."""

    def __init__(self, errors: Sequence[tuple[int, ItemError]]) -> None:
        self.errors = tuple(errors)
        index, first = self.errors[0]
        more = f" (and {len(self.errors) - 1} more)" if len(self.errors) > 1 else ""
        super().__init__(f"item {index}: {first}{more}")


class TooManyImages(DomainError):
    pass


class ModelNotFound(DomainError):
    pass


class VersionNotFound(DomainError):
    pass


class OperationNotSupported(DomainError):
    pass


class ModelNotReady(DomainError):
    pass


class Overloaded(DomainError):
    pass


class DeadlineExceeded(DomainError):
    pass


class ShuttingDown(DomainError):
    pass


class DeviceError(DomainError):
    pass


class BulkError(DomainError):
    pass
