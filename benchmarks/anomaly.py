"""Train detectors and measure their anomaly detection, into docs/results/anomaly.json.

    python -m benchmarks.anomaly --data DIR [--only TASK ...] [--studies STUDY ...] [--models DIR]

DIR holds folders `mnist` and `fashion-mnist` with the IDX files, and `mvtec-bottle-256`, `cookies`
and `screw` in the layout of MVTec AD. A task is skipped if its folder is missing. Bundles are
published below `runs`. A shipped bundle of the same recipe is reused. A bundle below `runs` is
reused if the revision of the code is the same, too.

Studies are of choices, few photographs, splits and false positives; they publish nothing.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from benchmarks import anomaly_studies as studies
from bundle.manifest import MANIFEST, ModelManifest
from training import recipe
from training.pipeline import draft_manifest, train_detector
from training.pipeline.destinations import ModelsDirectory
from training.recipe import DetectorRecipe

CLASSES = 10


class Task(NamedTuple):
    """A recipe with its variants by name, and the folder of its data."""

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
    """Run the command."""
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
        help="run studies instead of training",
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
                result = studies.STUDIES[study](chosen, home, options.draws)
                _write(options.output, ("studies", study, task.name), result)
                print(f"{study} of {task.name}: {json.dumps(result)}", flush=True)


def _train_all(task: Task, home: Path, options: argparse.Namespace) -> None:
    # IDX files need the parent folder, because another data set beside them may be anomalous.
    data, revision = home if task.photographs else options.data, draft_manifest.read_git_revision()
    for name, chosen in _runs(task, options.seeds, options.set):
        manifest = (
            _find_trained(chosen, options.models)
            or _find_trained(chosen, options.runs / "models", revision)
            or _train(chosen, data, options.runs)
        )
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
    models = ModelsDirectory(runs / "models")
    published = train_detector.run(
        chosen, data, models, False, lambda text: print(text, flush=True)
    )
    return ModelManifest.model_validate_json((published.directory / MANIFEST).read_bytes())


def _find_trained(
    chosen: DetectorRecipe, home: Path, revision: str | None = None
) -> ModelManifest | None:
    """The newest bundle of exactly this recipe, and of this revision if there is one.

    Recalibrated bundles are excluded.
    """
    paths = sorted(
        (home / chosen.name).glob(f"*/{MANIFEST}"), key=lambda path: -int(path.parent.name)
    )
    for manifest in (ModelManifest.model_validate_json(path.read_bytes()) for path in paths):
        made = manifest.provenance
        same_revision = made.git_revision == (revision or made.git_revision)
        if same_revision and not made.recalibrated and _is_of(made.recipe, chosen):
            return manifest
    return None


def _is_of(entries: dict[str, object], chosen: DetectorRecipe) -> bool:
    """True if the entries of a manifest, which may have former names, are the recipe's."""
    try:
        return DetectorRecipe.model_validate(entries) == chosen
    except ValidationError:  # it is of a time when recipes had other entries
        return False


def _record(path: Path, task: str, run: str, manifest: ModelManifest) -> None:
    assert manifest.selection is not None  # a detector has one
    metrics = manifest.metrics
    result = {
        "score": manifest.selection.score,
        "map": manifest.selection.map,
        "size": [manifest.input.height, manifest.input.width],
        "metrics": metrics,
        "minutes": manifest.provenance.minutes,
        "device": manifest.provenance.device,
        "revision": manifest.provenance.git_revision,
        "calibrated_on": len(manifest.calibration.scores) if manifest.calibration else 0,
    }
    _write(path, (task, run), result)
    area = next(value for name, value in metrics.items() if name.startswith("auroc_against_"))
    print(
        f"{task}, {run}: AUROC {100 * area:.2f} by {' and '.join(manifest.selection.score)}",
        flush=True,
    )


def _write(path: Path, keys: tuple[str, ...], result: object) -> None:
    """Put a result under these keys of the document, and keep the other results."""
    document: dict[str, Any] = (
        json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    )
    table = document
    for key in keys[:-1]:
        table = table.setdefault(key, {})
    table[keys[-1]] = result
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
