"""The command line of the offline side."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from training import recipes
from training.errors import TrainingError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives 0, or 1 with a message where something is wrong."""
    options = _parser().parse_args(arguments, argparse.Namespace(when_interrupted=""))
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return int(options.run(options))
    except (TrainingError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, _Terminated) as stop:
        print(f"interrupted{options.when_interrupted}", file=sys.stderr)
        return 130 if isinstance(stop, KeyboardInterrupt) else 143
    finally:
        signal.signal(signal.SIGTERM, before)


class _Terminated(BaseException):
    """SIGTERM, as an exception so that what was begun is cleared away."""


def _terminate(*_: object) -> None:
    raise _Terminated


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training", description="Train autoencoders and publish them."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a recipe and publish it as a bundle")
    train.add_argument("recipe", help="a recipe's name (see `recipes`) or a TOML file")
    train.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="where the data are; without it they are downloaded",
    )
    train.add_argument("--name", help="the model's name, if not the recipe's")
    train.add_argument(
        "--models", type=Path, default=Path("models"), metavar="DIR", help="(%(default)s)"
    )
    train.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="for checkpoints (%(default)s)",
    )
    train.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a recipe's entry"
    )
    train.add_argument(
        "--accept-weak", action="store_true", help="publish a detector whose trials went badly"
    )
    train.set_defaults(run=_train)

    of_model = {}
    for name, run, words in (
        ("evaluate", _evaluate, "measure a published model again on its test images"),
        (
            "convert-fp16",
            _convert_fp16,
            "publish a model again, computing in half precision for a GPU",
        ),
        (
            "calibrate",
            _calibrate,
            "publish a model again, calibrated on other normal images, without training",
        ),
        ("report", _report, "draw a published model's report again: an HTML page and PNGs"),
    ):
        command = of_model[name] = commands.add_parser(name, help=words)
        command.add_argument("model", help="the model's name")
        folder = run is _calibrate
        help_text = (
            "a folder of normal images"
            if folder
            else "where the data are; without it they are downloaded"
        )
        command.add_argument("--data", type=Path, metavar="DIR", required=folder, help=help_text)
        command.add_argument(
            "--models", type=Path, default=Path("models"), metavar="DIR", help="(%(default)s)"
        )
        command.set_defaults(run=run)
    of_model["convert-fp16"].add_argument(
        "--name", help="the new model's name, if not the model's with -fp16 behind it"
    )
    of_model["report"].add_argument(
        "--output", type=Path, metavar="DIR", help="where to write it, if not into the bundle"
    )

    recipes = commands.add_parser("recipes", help="list the recipes that come with the package")
    recipes.set_defaults(run=_recipes)

    overview = commands.add_parser(
        "overview", help="draw the README's pictures: overview.png and digits.png"
    )
    overview.add_argument(
        "--data", type=Path, metavar="DIR", help="where MNIST is; without it it is downloaded"
    )
    overview.add_argument(
        "--models", type=Path, default=Path("models"), metavar="DIR", help="(%(default)s)"
    )
    overview.add_argument(
        "--photo", type=Path, default=Path("docs/cookie.jpg"), metavar="FILE", help="(%(default)s)"
    )
    overview.add_argument(
        "--output", type=Path, default=Path("docs"), metavar="DIR", help="(%(default)s)"
    )
    overview.set_defaults(run=_overview)
    return parser


# Commands import what they need when they run: torch takes seconds to import.


def _train(options: argparse.Namespace) -> int:
    from training import recipe
    from training.pipeline import embedding, train, train_detector

    resolved = recipe.load(options.recipe, options.set, options.name)
    resumes = isinstance(resolved, recipe.Recipe)
    options.when_interrupted = (
        "; rerun the same command to resume" if resumes else "; nothing was published"
    )
    published: Path | None
    if isinstance(resolved, recipe.DetectorRecipe):
        published = train_detector.run(
            resolved, options.data, options.models, options.accept_weak, _log
        )
    elif isinstance(resolved, recipe.EmbeddingRecipe):
        published = embedding.run(resolved, options.models, _log)
    else:
        published = train.run(resolved, options.data, options.models, options.runs, _log)
    if published:  # else this is one of several processes, and another one publishes
        print(f"published {published}")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from training.pipeline import evaluate

    metrics = evaluate.measure(options.model, options.data, options.models, _log)
    width = max(32, *map(len, metrics))
    for name, value in metrics.items():
        print(f"{name:{width}} {value:.6g}")
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    from training.pipeline import republish

    print(f"published {republish.recalibrate(options.model, options.data, options.models, _log)}")
    return 0


def _convert_fp16(options: argparse.Namespace) -> int:
    from training.pipeline import republish

    name = options.name or f"{options.model}-fp16"
    print(
        f"published {republish.convert_to_fp16(options.model, name, options.data, options.models, _log)}"
    )
    return 0


def _report(options: argparse.Namespace) -> int:
    from training.pipeline import evaluate

    print(
        f"wrote {evaluate.write_report(options.model, options.data, options.models, options.output, _log)}"
    )
    return 0


def _recipes(_: argparse.Namespace) -> int:
    for name, description in recipes.descriptions().items():
        print(f"{name:24} {description}")
    return 0


def _overview(options: argparse.Namespace) -> int:
    from training.evaluation import overview

    detector, digits = options.output / "overview.png", options.output / "digits.png"
    overview.draw_detector(options.models, options.photo, detector)
    print(f"drew {detector}")
    overview.draw_digits(options.models, options.data, digits)
    print(f"drew {digits}")
    return 0


def _log(text: str) -> None:
    print(text, flush=True)
