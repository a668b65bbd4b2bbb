from pathlib import Path

import pytest

from tests.conftest import DATA
from training import recipe
from training.recipe import Recipe


@pytest.fixture
def data() -> Path:
    """A few hundred real images, in folders as `--data` takes them."""
    return DATA


def tiny(name: str = "mnist-undercomplete", *overrides: str) -> Recipe:
    """A shipped recipe, made small enough for a test."""
    small = ("data.calibration=50", "data.validation=20", "optimiser.epochs=2", "optimiser.batch_size=32")
    return recipe.load(name, [*small, "mixture_components=2", *overrides])
