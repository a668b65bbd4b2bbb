"""Recipes that come with the package."""

from pathlib import Path

RECIPES = Path(__file__).parent


def available() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(str(path.relative_to(RECIPES).with_suffix("")) for path in RECIPES.rglob("*.toml"))
