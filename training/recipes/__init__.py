"""Recipes that come with the package: a TOML file for each model."""

import tomllib
from pathlib import Path

RECIPES = Path(__file__).parent


def available() -> list[str]:
    """Names of the recipes, in order."""
    return sorted(
        str(path.relative_to(RECIPES).with_suffix("")) for path in RECIPES.rglob("*.toml")
    )


def descriptions() -> dict[str, str]:
    """Description of each recipe by its name."""
    return {
        name: str(tomllib.loads((RECIPES / f"{name}.toml").read_text())["description"])
        for name in available()
    }
