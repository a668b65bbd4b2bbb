"""The root of all errors, and those that both sides raise.

DomainError
├── ItemError                an invalid image or latent vector of a request
│   ├── InvalidImage
│   ├── ImageTooLarge
│   ├── UnsupportedFormat
│   └── InvalidLatents       in `service.errors`
├── InvalidParameter
├── BundleError
│   └── BundleUnavailable
├── (errors of requests)     in `service.errors`, `service.api` and `service.bulk`
└── TrainingError            in `training.errors`
"""


class DomainError(Exception):
    """Base of all errors that are raised on purpose; the message may be shown to anyone."""


class ItemError(DomainError):
    """One invalid item of a request."""


class InvalidImage(ItemError):
    """An image that is undecodable, truncated, or of the wrong shape."""


class ImageTooLarge(ItemError):
    """Images that have more pixels than the limit."""


class UnsupportedFormat(ItemError):
    """An image in an unsupported file format."""


class InvalidParameter(DomainError):
    """An option or a count that is invalid or out of range."""


class BundleError(DomainError):
    """A damaged or incomplete bundle, or one with wrong outputs."""


class BundleUnavailable(BundleError):
    """A bundle, or a store of bundles, that cannot be read now."""
