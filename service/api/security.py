"""Who may ask: API keys, each with the operations that it opens."""

import hmac
from collections.abc import Mapping, Sequence
from typing import get_args

from bundle.errors import DomainError, InvalidParameter
from bundle.manifest import Capability

EVERYTHING = "*"


class Unauthorized(DomainError):
    """The key is missing or wrong."""


class Forbidden(DomainError):
    """The key does not open this operation."""


class ApiKeys:
    """The keys and their rights; without any key everything is open. Raises InvalidParameter where one cannot be."""

    def __init__(self, rights: Mapping[str, Sequence[str]]) -> None:
        for key, operations in rights.items():
            if not key or not key.isascii() or not key.isprintable():
                raise InvalidParameter("api_keys: a key must be printable ASCII")
            if unknown := set(operations) - {EVERYTHING, *get_args(Capability)}:
                raise InvalidParameter(f"api_keys: there is no operation {min(unknown)!r}")
        self._rights = {key.encode(): frozenset(operations) for key, operations in rights.items()}

    def check(self, key: str | None, operation: str | None) -> None:
        """Let pass, or raise Unauthorized or Forbidden. Any key opens what is no operation: lists and cards."""
        if not self._rights:
            return
        if key is None:
            raise Unauthorized("an API key is needed: send 'Authorization: Bearer KEY'")
        # Every key is compared, each in constant time: the answer's delay tells nothing of them.
        found = [
            rights
            for known, rights in self._rights.items()
            if hmac.compare_digest(known, key.encode())
        ]
        if not found:
            raise Unauthorized("the API key is not known")
        if operation is not None and not found[0] & {operation, EVERYTHING}:
            raise Forbidden(
                f"the API key does not open {operation}; it opens: {', '.join(sorted(found[0])) or 'nothing'}"
            )
