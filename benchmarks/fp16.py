"""Measure the changes by fp16: outputs, errors, scores and verdicts of the shipped models.

    python -m benchmarks.fp16 [--only MODEL...] [--data DIR] [--models models]
                              [--output docs/results/fp16.json]

Every result is rounded to float16 as a GPU rounds it; nothing is published.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from training.errors import ParityError
from training.evaluation.autoencoder_results import AutoencoderResults
from training.export.published import load_newest
from training.pipeline import evaluate, republish

OUTPUT = Path("docs/results/fp16.json")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fp16", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--only", nargs="+", metavar="MODEL", help="models to measure (all in --models)"
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of the data; without it, they are downloaded",
    )
    parser.add_argument(
        "--models", type=Path, default=Path("models"), metavar="DIR", help="(%(default)s)"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="JSON", help="(%(default)s)")
    options = parser.parse_args()
    results = {}
    for name in options.only or sorted(
        path.name for path in options.models.iterdir() if path.is_dir()
    ):
        manifest = load_newest(options.models, name).manifest
        # Detectors and embeddings cannot be converted.
        if manifest.calibration and manifest.selection is None:
            results[name] = _measure(name, options.data, options.models)
            print(f"{name}: {results[name]}", flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=1) + "\n")


def _measure(name: str, data: Path | None, models: Path) -> dict[str, Any]:
    def log(text: str) -> None:
        print(f"  {text}", flush=True)

    model, before = evaluate.load_results(name, data, models, log)
    assert isinstance(before, AutoencoderResults)  # detectors were excluded
    with tempfile.TemporaryDirectory() as written, tempfile.TemporaryDirectory() as rounded:
        try:
            converted = republish.apply_fp16(model, before, Path(written), Path(rounded), log)
        except ParityError as error:
            return {"refused": str(error)}
    mse = [float(each.scored.errors.mean()) for each in (before, converted.results)]
    return {"parity": converted.parity, "mse": mse, **converted.changes}


if __name__ == "__main__":
    main()
