"""API keys, each with the operations that it permits."""

import hmac
from collections.abc import Mapping, Sequence
from typing import get_args

from bundle.errors import DomainError, InvalidParameter
from bundle.manifest import Capability

ALL_OPERATIONS = "*"
ADMIN, METRICS = "admin", "metrics"  # rights beside the operations, which `*` does not include


class Unauthorized(DomainError):
    """The API key is missing or unknown."""


class Forbidden(DomainError):
    """The API key does not permit this operation."""


class ApiKeys:
    """The keys and their operations; without any key, everything is permitted.

    Raises InvalidParameter if a key is not printable ASCII, or an operation is unknown.
    """

    def __init__(self, rights: Mapping[str, Sequence[str]]) -> None:
        for key, operations in rights.items():
            if not key or not key.isascii() or not key.isprintable():
                raise InvalidParameter("api_keys: a key must be printable ASCII")
            if unknown := set(operations) - {ALL_OPERATIONS, ADMIN, METRICS, *get_args(Capability)}:
                raise InvalidParameter(f"api_keys: there is no operation {min(unknown)!r}")
        self._rights = {key.encode(): frozenset(operations) for key, operations in rights.items()}

    def check(self, key: str | None, operation: str | None) -> str | None:
        """Return a name of the key that does not reveal it; None if no key is needed.

        Every valid key permits lists and cards, if `operation` is None. Raises Unauthorized without
        a valid key, Forbidden if it does not permit the operation.
        """
        if not self._rights:
            return None
        if key is None:
            raise Unauthorized("the API key is missing; send 'Authorization: Bearer KEY'")
        # Every key is compared in constant time, because timing would reveal parts of a key.
        found = [
            (f"API key {number}", rights)
            for number, (known, rights) in enumerate(self._rights.items(), start=1)
            if hmac.compare_digest(known, key.encode())
        ]
        if not found:
            raise Unauthorized("the API key is unknown; check the Authorization header")
        name, rights = found[0]
        every = frozenset() if operation in (ADMIN, METRICS) else {ALL_OPERATIONS}
        if operation is not None and not rights & {operation, *every}:
            permitted = ", ".join(sorted(rights)) or "nothing"
            raise Forbidden(f"the API key does not permit {operation}; it permits: {permitted}")
        return name
