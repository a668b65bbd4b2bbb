"""Errors."""


class DomainError(Exception):
    """Base of all errors that are raised on purpose; the message is fit for a client."""


class ItemError(DomainError):
    """One item of a request is at fault."""


class InvalidImage(ItemError):
    pass


class ImageTooLarge(ItemError):
    pass


class UnsupportedFormat(ItemError):
    pass


class InvalidParameter(DomainError):
    pass


class BundleError(DomainError):
    pass
