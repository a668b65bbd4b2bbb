"""The figures of trained recipes, as they are kept in docs/results/models.json."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from training.recipe import Recipe

Figures = dict[str, Any]


def read(path: Path) -> dict[str, list[Figures]]:
    """The runs of each recipe, by its name; none where there is no file yet."""
    found: dict[str, list[Figures]] = (
        json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    )
    return found


def write(name: str, figures: Figures, path: Path) -> None:
    """Put the figures of one run among the others of its recipe, and leave out those of a recipe that has changed."""
    every, chosen = read(path), Recipe.model_validate(figures["recipe"])
    others = [
        run
        for run in every.get(name, [])
        if run["seed"] != figures["seed"] and is_of(run["recipe"], chosen)
    ]
    every[name] = sorted([*others, figures], key=lambda run: run["seed"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(sorted(every.items())), indent=1) + "\n", encoding="utf-8")


def is_of(entries: dict[str, object], chosen: Recipe) -> bool:
    """Whether the entries that a run was trained with are the recipe's, whatever its seed and name."""
    try:
        return Recipe.model_validate(entries | {"seed": chosen.seed, "name": chosen.name}) == chosen
    except ValidationError:  # it is of a time when recipes had other entries
        return False
