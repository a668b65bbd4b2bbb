"""The use cases. No HTTP here."""

from service.operations.use_cases import Operations
from service.operations.values import (
    MAX_SEED,
    Classified,
    EncodedImages,
    Latents,
    Limits,
    Localised,
    Timings,
    check_count,
    each,
)

__all__ = [
    "MAX_SEED",
    "Classified",
    "EncodedImages",
    "Latents",
    "Limits",
    "Localised",
    "Operations",
    "Timings",
    "check_count",
    "each",
]
