"""The use cases. No HTTP here."""

from service.operations.timings import Timings
from service.operations.use_cases import Operations
from service.operations.values import (
    MAX_SEED,
    NO_PICTURES,
    Classified,
    Encoded,
    EncodedImages,
    Latents,
    Limits,
    Localised,
    Pictures,
    Scored,
    check_count,
    check_supported,
    each,
)

__all__ = [
    "MAX_SEED",
    "NO_PICTURES",
    "Classified",
    "Encoded",
    "EncodedImages",
    "Latents",
    "Limits",
    "Localised",
    "Operations",
    "Pictures",
    "Scored",
    "Timings",
    "check_count",
    "check_supported",
    "each",
]
