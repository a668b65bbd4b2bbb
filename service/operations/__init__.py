"""Use cases of the service, independent of HTTP."""

from service.operations.timings import Timings
from service.operations.use_cases import Operations, require_part
from service.operations.values import (
    MAX_SEED,
    NO_PICTURES,
    ClassifyResult,
    EncodedImages,
    EncodeResult,
    Latents,
    Limits,
    Localisation,
    Pictures,
    ScoreResult,
    check_count,
    check_supported,
    map_items,
)

__all__ = [
    "MAX_SEED",
    "NO_PICTURES",
    "ClassifyResult",
    "EncodeResult",
    "EncodedImages",
    "Latents",
    "Limits",
    "Localisation",
    "Operations",
    "Pictures",
    "ScoreResult",
    "Timings",
    "check_count",
    "check_supported",
    "map_items",
    "require_part",
]
