"""Train every recipe, ours and the classics, and write their test figures to docs/results/models.json.

    python -m benchmarks.models [--data DIR] [--only RECIPE ...]

The bundle that is shipped is the run with seed 0. Where a run takes less than ten minutes, seeds 1 and 2 are run too.
What was trained before with the same recipe is not trained again.
"""

import argparse
import json
from pathlib import Path

from pydantic import ValidationError

from service.manifest import MANIFEST, ModelManifest
from training import pipeline, recipe
from training.recipe import Recipe

SEEDS = (0, 1, 2)
REPEATED = 10.0  # minutes: the runs that take less are run with every seed
CLASSICS = "classics/"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="DIR", help="where the data are; without it they are downloaded")
    parser.add_argument("--only", nargs="+", metavar="RECIPE", help="recipes to train (all)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override all recipes' entry")
    parser.add_argument("--models", type=Path, default=Path("models"), metavar="DIR", help="(%(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="(%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("docs/results"), metavar="DIR", help="(%(default)s)")
    options = parser.parse_args()
    study = options.runs / "study"
    for name in options.only or _ours_and_classics():
        for seed in SEEDS:
            chosen, home = _run(name, seed, options.models, study, options.set)
            if _trained(chosen, home) is None:
                pipeline.run(chosen, options.data, home, options.runs, lambda text: print(text, flush=True))
            if not _is_short(_trained(chosen, home)):
                break
    figures = {name: _figures(name, options.models, study, options.set) for name in _ours_and_classics()}
    options.output.mkdir(parents=True, exist_ok=True)
    known = {name: runs for name, runs in figures.items() if runs}
    (options.output / "models.json").write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {options.output / 'models.json'}")


def _ours_and_classics() -> list[str]:
    """Every recipe whose data are the same for all; that of folders is a start for one's own."""
    return [name for name in recipe.available() if recipe.load(name).data.dataset != "folder"]


def _run(name: str, seed: int, models: Path, study: Path, overrides: list[str]) -> tuple[Recipe, Path]:
    """The recipe of a run, and where its bundle is published: the shipped one, or one of the study."""
    if seed == 0 and not name.startswith(CLASSICS):
        return recipe.load(name, overrides), models
    plain = recipe.load(name)
    return recipe.load(name, [*overrides, f"seed={seed}"], f"{plain.name}-seed{seed}"), study


def _trained(chosen: Recipe, home: Path) -> ModelManifest | None:
    """The newest bundle of exactly this recipe."""
    found = [
        ModelManifest.model_validate_json(path.read_bytes())
        for path in sorted((home / chosen.name).glob(f"*/{MANIFEST}"), key=lambda path: int(path.parent.name))
    ]
    same = [manifest for manifest in found if _is_of(manifest, chosen)]
    return same[-1] if same else None


def _is_of(manifest: ModelManifest, chosen: Recipe) -> bool:
    try:
        return Recipe.model_validate(manifest.provenance.recipe) == chosen
    except ValidationError:  # it is of a time when recipes had other entries
        return False


def _is_short(manifest: ModelManifest | None) -> bool:
    minutes = manifest.provenance.minutes if manifest else None
    return minutes is not None and minutes < REPEATED


def _figures(name: str, models: Path, study: Path, overrides: list[str]) -> list[dict[str, object]]:
    found = [_trained(*_run(name, seed, models, study, overrides)) for seed in SEEDS]
    return [
        {
            "seed": seed,
            "device": manifest.provenance.device,
            "minutes": manifest.provenance.minutes,
            "metrics": manifest.metrics,
        }
        for seed, manifest in zip(SEEDS, found, strict=True)
        if manifest
    ]


if __name__ == "__main__":
    main()
