"""Train detectors and measure how well they find what is strange, into docs/results/anomaly.json.

    python -m benchmarks.anomaly --data DIR [--only TASK ...] [--seeds 0 1 2] [--models DIR]

DIR holds folders `mnist` and `fashion-mnist` with the IDX files, and `mvtec-bottle-256` and `cookies` in the layout of
MVTec AD; a task whose folder is not there is left out. Bundles are published beside the checkpoints, below `runs`; what
is shipped with the same recipe, or was trained before with it by the same revision of the code, is not trained again.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from service.manifest import MANIFEST, ModelManifest
from training import bundle, pipeline, recipe
from training.recipe import Recipe

CLASSES = 10


class Task(NamedTuple):
    """What is trained: recipes by the names that they have within the task, and the folder of their data."""

    name: str
    folder: str
    recipe: str
    variants: dict[str, tuple[str, ...]]


def _one_class(dataset: str) -> dict[str, tuple[str, ...]]:
    return {f"{dataset}-{only}": (f"data.dataset={dataset}", f"data.only={only}") for only in range(CLASSES)}


TASKS = (
    Task("bottle", "mvtec-bottle-256", "photo-anomaly", {"bottle": ()}),
    Task("cookies", "cookies", "cookies", {"cookies": ()}),
    Task("one-class-mnist", "mnist", "one-class", _one_class("mnist")),
    Task("one-class-fashion-mnist", "fashion-mnist", "one-class", _one_class("fashion-mnist")),
    Task("fashion-against-mnist", "fashion-mnist", "fashion-anomaly", {"fashion-anomaly": ()}),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.anomaly", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="DIR", required=True, help="holds a folder for each data set")
    parser.add_argument("--only", nargs="+", metavar="TASK", choices=[task.name for task in TASKS], help="(all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED", help="(0)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override an entry of all")
    parser.add_argument("--models", type=Path, default=Path("models"), metavar="DIR", help="(%(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("runs/anomaly"), metavar="DIR", help="(%(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path("docs/results/anomaly.json"), metavar="JSON", help="(%(default)s)"
    )
    options = parser.parse_args()
    revision = bundle.git_revision()
    for task in TASKS:
        if options.only and task.name not in options.only:
            continue
        home = options.data / task.folder
        if not home.is_dir():
            print(f"{task.name} is left out: there is no {home}")
            continue
        # The data sets of IDX files are found by their names, for another one may be what is strange.
        data = options.data if task.folder in ("mnist", "fashion-mnist") else home
        for name, chosen in _runs(task, options.seeds, options.set):
            manifest = _known(chosen, options.models) or _known(chosen, options.runs / "models", revision)
            manifest = manifest or _train(chosen, data, options.runs)
            _write(options.output, task.name, name, manifest)


def _runs(task: Task, seeds: list[int], overrides: list[str]) -> Iterator[tuple[str, Recipe]]:
    for name, variant in task.variants.items():
        for seed in seeds:
            run = f"{name}-seed{seed}" if seed else name
            yield f"{name}, seed {seed}", recipe.load(task.recipe, [*variant, *overrides, f"seed={seed}"], run)


def _train(chosen: Recipe, data: Path, runs: Path) -> ModelManifest:
    path = pipeline.run(chosen, data, runs / "models", runs, lambda text: print(text, flush=True))
    assert path is not None  # one process trains
    return ModelManifest.model_validate_json((path / MANIFEST).read_bytes())


def _known(chosen: Recipe, home: Path, revision: str | None = None) -> ModelManifest | None:
    """The newest bundle of exactly this recipe, of this revision if one is given, that was not calibrated anew."""
    wanted = chosen.model_dump(mode="json")
    paths = sorted((home / chosen.name).glob(f"*/{MANIFEST}"), key=lambda path: -int(path.parent.name))
    for manifest in (ModelManifest.model_validate_json(path.read_bytes()) for path in paths):
        made = manifest.provenance
        same = made.recipe == wanted and made.git_revision == (revision or made.git_revision)
        if same and not made.recalibrated:
            return manifest
    return None


def _write(path: Path, task: str, run: str, manifest: ModelManifest) -> None:
    every: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    assert manifest.selection is not None  # a detector has one
    every.setdefault(task, {})[run] = {
        "score": manifest.selection.score,
        "map": manifest.selection.map,
        "metrics": manifest.metrics,
        "minutes": manifest.provenance.minutes,
        "device": manifest.provenance.device,
        "revision": manifest.provenance.git_revision,
        "calibrated_on": len(manifest.calibration.scores) if manifest.calibration else 0,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(every, indent=1) + "\n", encoding="utf-8")
    area = next(value for name, value in manifest.metrics.items() if name.startswith("auroc_against_"))
    print(f"{task}, {run}: AUROC {100 * area:.2f} by {' and '.join(manifest.selection.score)}", flush=True)


if __name__ == "__main__":
    main()
