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
    """Undecodable, truncated, or of the wrong shape."""


class ImageTooLarge(ItemError):
    """More pixels than the limit."""


class UnsupportedFormat(ItemError):
    """A file format that is not supported."""


class InvalidParameter(DomainError):
    """An option or count out of range."""


class BundleError(DomainError):
    """A damaged or incomplete bundle, or one with wrong outputs."""


class BundleUnavailable(BundleError):
    """A bundle, or a store of bundles, that cannot be read now."""
