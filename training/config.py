"""Base and shared types of all configurations."""

from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field, PositiveInt

from bundle.manifest import Record

Size = Annotated[  # height, width; one number is both
    tuple[PositiveInt, PositiveInt],
    BeforeValidator(lambda side: (side, side) if isinstance(side, int) else side),
]
Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


class Config(Record):
    """A frozen configuration that refuses unknown keys; a string below an entry describes it."""

    model_config = ConfigDict(use_attribute_docstrings=True)
