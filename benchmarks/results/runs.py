"""Runs of trained recipes, with their metrics, as in docs/results/models.json."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from training.recipe import Recipe

Run = dict[str, Any]


def read(path: Path) -> dict[str, list[Run]]:
    """The runs of each recipe, by its name; none if there is no file yet."""
    stored: dict[str, list[Run]] = (
        json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    )
    return stored


def write(name: str, run: Run, path: Path) -> None:
    """Add a run to the others of its recipe, and remove runs of a recipe that has changed."""
    every, chosen = read(path), Recipe.model_validate(run["recipe"])
    others = [
        other
        for other in every.get(name, [])
        if other["seed"] != run["seed"] and is_of(other["recipe"], chosen)
    ]
    every[name] = sorted([*others, run], key=lambda each: each["seed"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(sorted(every.items())), indent=1) + "\n", encoding="utf-8")


def is_of(entries: dict[str, object], chosen: Recipe) -> bool:
    """True if the stored entries are the recipe's, ignoring seed and name.

    The entries are parsed first, because they may have former names, such as `unfit`.
    """
    try:
        return Recipe.model_validate(entries | {"seed": chosen.seed, "name": chosen.name}) == chosen
    except ValidationError:  # recipes had other entries then
        return False
