"""Train detectors and measure how well they find anomalies, into docs/results/anomaly.json.

    python -m benchmarks.anomaly --data DIR [--only TASK ...] [--studies STUDY ...] [--models DIR]

DIR holds folders `mnist` and `fashion-mnist` with the IDX files, and `mvtec-bottle-256`, `cookies` and `screw` in the
layout of MVTec AD; a task whose folder is missing is skipped. Bundles are published below `runs`; one that is shipped
with the same recipe, or was trained before with it by the same revision of the code, is not trained again. Studies look
at choices, at few photographs, at splits and at false positives; they publish nothing.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import anomaly_studies as studies
from bundle.manifest import MANIFEST, ModelManifest
from training import recipe
from training.pipeline import draft_manifest, train_detector
from training.recipe import DetectorRecipe

CLASSES = 10


class Task(NamedTuple):
    """Recipes by the names that they have within the task, and the folder of their data."""

    name: str
    folder: str
    recipe: str
    variants: dict[str, tuple[str, ...]]

    @property
    def photographs(self) -> bool:
        return self.folder not in ("mnist", "fashion-mnist")


def _one_class(dataset: str) -> dict[str, tuple[str, ...]]:
    return {
        f"{dataset}-{only}": (f"data.dataset={dataset}", f"data.only={only}")
        for only in range(CLASSES)
    }


TASKS = (
    Task("bottle", "mvtec-bottle-256", "photo-anomaly", {"bottle": ()}),
    Task("cookies", "cookies", "cookies", {"cookies": ()}),
    Task("screw", "screw", "photo-anomaly", {"screw": ()}),
    Task("one-class-mnist", "mnist", "one-class", _one_class("mnist")),
    Task("one-class-fashion-mnist", "fashion-mnist", "one-class", _one_class("fashion-mnist")),
    Task("fashion-against-mnist", "fashion-mnist", "fashion-anomaly", {"fashion-anomaly": ()}),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.anomaly", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", required=True, help="holds a folder for each data set"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="TASK", choices=[task.name for task in TASKS], help="(all)"
    )
    parser.add_argument(
        "--studies",
        nargs="*",
        metavar="STUDY",
        choices=list(studies.STUDIES),
        help="studies, in place of training",
    )
    parser.add_argument(
        "--draws", type=int, default=10, metavar="N", help="random draws of a study (%(default)s)"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="SEED", help="(0)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override an entry of all"
    )
    parser.add_argument(
        "--models", type=Path, default=Path("models"), metavar="DIR", help="(%(default)s)"
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/anomaly"), metavar="DIR", help="(%(default)s)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("docs/results/anomaly.json"),
        metavar="JSON",
        help="(%(default)s)",
    )
    options = parser.parse_args()
    for task in TASKS:
        if options.only and task.name not in options.only:
            continue
        home = options.data / task.folder
        if not home.is_dir():
            print(f"skipped {task.name}: there is no {home}")
        elif options.studies is None:
            _train_all(task, home, options)
        elif task.photographs:
            for study in options.studies or studies.STUDIES:
                chosen = _load(task.recipe, options.set, task.name)
                found = studies.STUDIES[study](chosen, home, options.draws)
                _write(options.output, ("studies", study, task.name), found)
                print(f"{study} of {task.name}: {json.dumps(found)}", flush=True)


def _train_all(task: Task, home: Path, options: argparse.Namespace) -> None:
    # The data sets of IDX files are found by their names, because another one may be anomalous.
    data, revision = home if task.photographs else options.data, draft_manifest.read_git_revision()
    for name, chosen in _runs(task, options.seeds, options.set):
        manifest = _known(chosen, options.models) or _known(
            chosen, options.runs / "models", revision
        )
        manifest = manifest or _train(chosen, data, options.runs)
        _record(options.output, task.name, name, manifest)


def _load(name: str, overrides: list[str], run: str) -> DetectorRecipe:
    chosen = recipe.load(name, overrides, run)
    assert isinstance(chosen, DetectorRecipe)  # the tasks name no others
    return chosen


def _runs(
    task: Task, seeds: list[int], overrides: list[str]
) -> Iterator[tuple[str, DetectorRecipe]]:
    for name, variant in task.variants.items():
        for seed in seeds:
            run = f"{name}-seed{seed}" if seed else name
            yield (
                f"{name}, seed {seed}",
                _load(task.recipe, [*variant, *overrides, f"seed={seed}"], run),
            )


def _train(chosen: DetectorRecipe, data: Path, runs: Path) -> ModelManifest:
    path = train_detector.run(
        chosen, data, runs / "models", False, lambda text: print(text, flush=True)
    )
    return ModelManifest.model_validate_json((path / MANIFEST).read_bytes())


def _known(chosen: DetectorRecipe, home: Path, revision: str | None = None) -> ModelManifest | None:
    """The newest bundle of exactly this recipe, of this revision if one is given, that was not calibrated anew."""
    wanted = chosen.model_dump(mode="json")
    paths = sorted(
        (home / chosen.name).glob(f"*/{MANIFEST}"), key=lambda path: -int(path.parent.name)
    )
    for manifest in (ModelManifest.model_validate_json(path.read_bytes()) for path in paths):
        made = manifest.provenance
        same = made.recipe == wanted and made.git_revision == (revision or made.git_revision)
        if same and not made.recalibrated:
            return manifest
    return None


def _record(path: Path, task: str, run: str, manifest: ModelManifest) -> None:
    assert manifest.selection is not None  # a detector has one
    metrics = manifest.metrics
    figures = {
        "score": manifest.selection.score,
        "map": manifest.selection.map,
        "size": [manifest.input.height, manifest.input.width],
        "metrics": metrics,
        "minutes": manifest.provenance.minutes,
        "device": manifest.provenance.device,
        "revision": manifest.provenance.git_revision,
        "calibrated_on": len(manifest.calibration.scores) if manifest.calibration else 0,
    }
    _write(path, (task, run), figures)
    area = next(value for name, value in metrics.items() if name.startswith("auroc_against_"))
    print(
        f"{task}, {run}: AUROC {100 * area:.2f} by {' and '.join(manifest.selection.score)}",
        flush=True,
    )


def _write(path: Path, keys: tuple[str, ...], found: object) -> None:
    """Put what was found under the keys of the document, beside what is there."""
    every: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    place = every
    for key in keys[:-1]:
        place = place.setdefault(key, {})
    place[keys[-1]] = found
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(every, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
