"""Train every recipe of a network, and write the test metrics to docs/results/models.json.

    python -m benchmarks.zoo [--data DIR] [--only RECIPE ...]

The run with seed 0 is the shipped bundle. If it takes less than ten minutes, seeds 1 and 2 follow.
A run is skipped if the same recipe was trained before.
"""

import argparse
from pathlib import Path

from benchmarks.results import runs
from benchmarks.results.runs import Run
from bundle.manifest import MANIFEST, ModelManifest
from training import recipe, recipes
from training.pipeline import train
from training.pipeline.destinations import ModelsDirectory
from training.recipe import Recipe

SEEDS = (0, 1, 2)
MAX_REPEATED_MINUTES = 10.0  # of runs that are repeated with every seed


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.zoo", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of the data; without it, they are downloaded",
    )
    parser.add_argument("--only", nargs="+", metavar="RECIPE", help="recipes to train (all)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override an entry of all"
    )
    parser.add_argument(
        "--models", type=Path, default=Path("models"), metavar="DIR", help="(%(default)s)"
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="(%(default)s)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("docs/results/models.json"),
        metavar="JSON",
        help="(%(default)s)",
    )
    options = parser.parse_args()
    for name in options.only or _list_recipes():
        for seed in SEEDS:
            run = _find_run(name, seed, options)
            if run is None:
                chosen, home = _plan(name, seed, options)
                models = ModelsDirectory(home)
                train.run(
                    chosen, options.data, models, options.runs, lambda text: print(text, flush=True)
                )
                run = _find_run(name, seed, options)
            assert run is not None  # it has just been trained
            runs.write(name, run, options.output)
            if run["minutes"] >= MAX_REPEATED_MINUTES:
                break


def _list_recipes() -> list[str]:
    """Recipes of networks with public data; the recipe `folder` is for the user's own images."""
    loaded = {name: recipe.load(name) for name in recipes.available()}
    networks = {name: each for name, each in loaded.items() if isinstance(each, Recipe)}
    return [name for name, each in networks.items() if each.data.dataset != "folder"]


def _plan(name: str, seed: int, options: argparse.Namespace) -> tuple[Recipe, Path]:
    """The recipe of a run, and the folder of its bundle: the shipped one, or beside checkpoints."""
    if seed == 0 and "/" not in name:
        return recipe.load_network(name, options.set), options.models
    run_name = f"{recipe.load_network(name).name}-seed{seed}"
    chosen = recipe.load_network(name, [*options.set, f"seed={seed}"], run_name)
    return chosen, options.runs / "study"


def _find_run(name: str, seed: int, options: argparse.Namespace) -> Run | None:
    """The run in the newest bundle of exactly this recipe, or else in the results."""
    chosen, home = _plan(name, seed, options)
    paths = sorted(
        (home / chosen.name).glob(f"*/{MANIFEST}"), key=lambda path: -int(path.parent.name)
    )
    for manifest in [ModelManifest.model_validate_json(path.read_bytes()) for path in paths]:
        made = manifest.provenance
        if made.recipe["seed"] == seed and runs.is_of(made.recipe, chosen):
            run = {"minutes": made.minutes, "device": made.device, "metrics": manifest.metrics}
            return {"seed": seed, **run, "recipe": made.recipe}
    for stored in runs.read(options.output).get(name, []):
        if stored["seed"] == seed and runs.is_of(stored["recipe"], chosen):
            return stored
    return None


if __name__ == "__main__":
    main()
