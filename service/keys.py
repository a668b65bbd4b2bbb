"""API keys: their entries in the settings or in a file, and new keys."""

import hashlib
import json
import secrets
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bundle.errors import InvalidParameter
from bundle.manifest import Capability

_OtherRight = Literal["*", "admin", "metrics"]
Right = Capability | _OtherRight
RIGHTS: tuple[Right, ...] = (*get_args(Capability), *get_args(_OtherRight))
NAME_PATTERN = r"^[\w.-]{1,64}$"
EXAMPLE = '{"NAME": {"sha256": "...", "rights": ["encode"]}}; `create-key` prints such an entry'


class KeyEntry(BaseModel):
    """The SHA-256 of a key, what it permits, and its requests a second if they are limited."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    rights: tuple[Right, ...] = ()
    requests_per_second: Annotated[int, Field(gt=0, le=10**6)] | None = None


KeyEntries = dict[Annotated[str, Field(pattern=NAME_PATTERN)], KeyEntry]  # by name


def compute_key_digest(key: str) -> str:
    """Return the SHA-256 of a key; a slow hash would add nothing to a random key of 256 bits."""
    return hashlib.sha256(key.encode()).hexdigest()


def create_key(name: str, rights: list[str]) -> tuple[str, str]:
    """Return a random key, and its entry as JSON. Raises InvalidParameter for unknown rights."""
    key = secrets.token_urlsafe(32)
    entry = {name: {"sha256": compute_key_digest(key), "rights": rights}}
    parse_entries(json.dumps(entry))
    return key, json.dumps(entry)


def parse_entries(text: str) -> KeyEntries:
    """Parse entries of JSON. Raises InvalidParameter, which shows no value."""
    try:
        return TypeAdapter(KeyEntries).validate_json(text)
    except ValidationError as error:
        raise InvalidParameter(_describe_problem(error)) from None


def _describe_problem(error: ValidationError) -> str:
    """Describe the first problem of entries, without names or values, which can be keys."""
    first = error.errors(include_input=False, include_url=False)[0]
    place = [str(part) for part in first["loc"] if part in KeyEntry.model_fields]
    return f"API keys: {'.'.join(place) or 'entry'}: {first['msg']}; write them like {EXAMPLE}"
