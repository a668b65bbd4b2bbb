"""Train every recipe, ours, the classics and the studies, and write their test figures to docs/results/models.json.

    python -m benchmarks.zoo [--data DIR] [--only RECIPE ...]

The bundle that is shipped is the run with seed 0. Where a run takes less than ten minutes, seeds 1 and 2 are run too.
What was trained before with the same recipe is not trained again.
"""

import argparse
from pathlib import Path

from benchmarks.results import runs
from benchmarks.results.runs import Figures
from bundle.manifest import MANIFEST, ModelManifest
from training import recipe, recipes
from training.pipeline import train
from training.recipe import Recipe

SEEDS = (0, 1, 2)
REPEATED = 10.0  # minutes: the runs that take less are run with every seed


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.zoo", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="where the data are; without it they are downloaded",
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
    for name in options.only or _every_recipe():
        for seed in SEEDS:
            figures = _figures(name, seed, options)
            if figures is None:
                chosen, home = _run(name, seed, options)
                train.run(
                    chosen, options.data, home, options.runs, lambda text: print(text, flush=True)
                )
                figures = _figures(name, seed, options)
            assert figures is not None  # it has just been trained
            runs.write(name, figures, options.output)
            if figures["minutes"] >= REPEATED:
                break


def _every_recipe() -> list[str]:
    """Those of networks whose data are the same for all; that of folders is for one's own."""
    loaded = {name: recipe.load(name) for name in recipes.available()}
    networks = {name: each for name, each in loaded.items() if isinstance(each, Recipe)}
    return [name for name, each in networks.items() if each.data.dataset != "folder"]


def _run(name: str, seed: int, options: argparse.Namespace) -> tuple[Recipe, Path]:
    """The recipe of a run, and where its bundle is published: the shipped one, or one beside the checkpoints."""
    if seed == 0 and "/" not in name:
        return recipe.load_network(name, options.set), options.models
    plain = recipe.load_network(name)
    return recipe.load_network(
        name, [*options.set, f"seed={seed}"], f"{plain.name}-seed{seed}"
    ), options.runs / "study"


def _figures(name: str, seed: int, options: argparse.Namespace) -> Figures | None:
    """Of the newest bundle of exactly this recipe, or else as they were written before."""
    chosen, home = _run(name, seed, options)
    found = [
        ModelManifest.model_validate_json(path.read_bytes())
        for path in sorted(
            (home / chosen.name).glob(f"*/{MANIFEST}"), key=lambda path: -int(path.parent.name)
        )
    ]
    for manifest in found:
        made = manifest.provenance
        if made.recipe["seed"] == seed and runs.is_of(made.recipe, chosen):
            figures = {"minutes": made.minutes, "device": made.device, "metrics": manifest.metrics}
            return {"seed": seed, **figures, "recipe": made.recipe}
    for known in runs.read(options.output).get(name, []):
        if known["seed"] == seed and runs.is_of(known["recipe"], chosen):
            return known
    return None


if __name__ == "__main__":
    main()
