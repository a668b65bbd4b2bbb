"""The command line of training."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from bundle.errors import DomainError
from training import recipes

if TYPE_CHECKING:  # because its imports take seconds
    from training.pipeline.publish import Published

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
_DATA_HELP = "folder of the data; without it, they are downloaded"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    It is 0, 1 after an error with a message, 130 after SIGINT, or 143 after SIGTERM.
    """
    options = _build_parser().parse_args(arguments, argparse.Namespace(when_interrupted=""))
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return int(options.run(options))
    except (DomainError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, _Terminated) as stop:
        print(f"interrupted{options.when_interrupted}", file=sys.stderr)
        return 130 if isinstance(stop, KeyboardInterrupt) else 143
    finally:
        signal.signal(signal.SIGTERM, before)


class _Terminated(BaseException):
    """SIGTERM as an exception, so that incomplete files are removed."""


def _terminate(*_: object) -> None:
    raise _Terminated


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training", description="Train autoencoders and publish them."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    _add_model_commands(commands)
    recipes = commands.add_parser("recipes", help="list the recipes that come with the package")
    recipes.set_defaults(run=_recipes)
    _add_overview(commands)
    return parser


def _add_train(commands: _Commands) -> None:
    train = commands.add_parser("train", help="train a recipe and publish it as a bundle")
    train.add_argument("recipe", help="a recipe's name (see `recipes`) or a TOML file")
    train.add_argument("--data", type=Path, metavar="DIR", help=_DATA_HELP)
    train.add_argument("--name", help="the model's name, if not the recipe's")
    _add_destination(train)
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
        "--accept-weak",
        action="store_true",
        help="publish a detector that finds too few synthetic anomalies",
    )
    train.set_defaults(run=_train)
    publish = commands.add_parser("publish", help="publish a bundle again, such as to a store")
    publish.add_argument("bundle", type=Path, metavar="DIR", help="such as models/cookies/5")
    _add_destination(publish)
    publish.set_defaults(run=_publish)


def _add_destination(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--models",
        default="models",
        metavar="DIR|URL",
        help="directory or store to publish to, such as s3://bucket/models (%(default)s)",
    )
    command.add_argument(
        "--compatible",
        action="store_true",
        help="refuse a version that encodes unlike the version before, so that vectors never mix",
    )


def _add_model_commands(commands: _Commands) -> None:
    """Add the commands on a published model."""
    for name, run, summary in (
        ("evaluate", _evaluate, "measure a published model again on its test images"),
        ("convert-fp16", _convert_fp16, "publish a model again, computing in fp16 for a GPU"),
        (
            "calibrate",
            _calibrate,
            "publish a model again, calibrated on other normal images, without training",
        ),
        (
            "add-examples",
            _add_examples,
            "publish a model again, with test images for people who want to try it",
        ),
        ("report", _report, "draw a published model's report again: an HTML page and PNGs"),
    ):
        command = commands.add_parser(name, help=summary)
        command.add_argument("model", help="the model's name")
        required = run is _calibrate
        command.add_argument(
            "--data",
            type=Path,
            metavar="DIR",
            required=required,
            help="a folder of normal images" if required else _DATA_HELP,
        )
        _add_models(command)
        if run is _convert_fp16:
            command.add_argument(
                "--name", help="the new model's name, if not the model's with -fp16 behind it"
            )
        if run is _report:
            command.add_argument(
                "--output", type=Path, metavar="DIR", help="output folder, if not the bundle"
            )
        command.set_defaults(run=run)


def _add_overview(commands: _Commands) -> None:
    overview = commands.add_parser(
        "overview", help="draw the README's pictures: overview.png and digits.png"
    )
    overview.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of MNIST; without it, it is downloaded"
    )
    _add_models(overview)
    overview.add_argument(
        "--photo", type=Path, default=Path("docs/cookie.jpg"), metavar="FILE", help="(%(default)s)"
    )
    overview.add_argument(
        "--output", type=Path, default=Path("docs"), metavar="DIR", help="(%(default)s)"
    )
    overview.set_defaults(run=_overview)


def _add_models(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--models",
        type=_parse_directory,
        default=Path("models"),
        metavar="DIR",
        help="(%(default)s)",
    )


def _parse_directory(text: str) -> Path:
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text} is no directory; copy the bundle to one first")
    return Path(text)


# Commands import their modules when they run, because torch takes seconds to import.


def _train(options: argparse.Namespace) -> int:
    from training import recipe
    from training.pipeline import embedding, train, train_detector
    from training.pipeline.destinations import open_destination

    resolved = recipe.load(options.recipe, options.set, options.name)
    resumes = isinstance(resolved, recipe.Recipe)
    options.when_interrupted = (
        "; rerun the same command to resume" if resumes else "; nothing was published"
    )
    models = open_destination(options.models)
    published: Published | None
    if isinstance(resolved, recipe.DetectorRecipe):
        published = train_detector.run(
            resolved,
            options.data,
            models,
            options.accept_weak,
            _log,
            options.compatible,
        )
    elif isinstance(resolved, recipe.EmbeddingRecipe):
        published = embedding.run(resolved, models, _log, options.compatible)
    else:
        published = train.run(
            resolved, options.data, models, options.runs, _log, options.compatible
        )
    if published:  # None: another process of this run publishes
        _print_published(published, options.models)
    return 0


def _publish(options: argparse.Namespace) -> int:
    from training.pipeline import republish
    from training.pipeline.destinations import open_destination

    models = open_destination(options.models)
    published = republish.publish_again(options.bundle, models, options.compatible)
    _print_published(published, options.models)
    return 0


def _print_published(published: "Published", models: str) -> None:
    print(f"published {published.place}")
    if other := published.other_encoder:
        print(f"it encodes unlike version {other}: encode stored images again before a search")
    print(f"serve it: python -m service serve --models {models}")


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


def _add_examples(options: argparse.Namespace) -> int:
    from training.pipeline import republish

    print(f"published {republish.add_examples(options.model, options.data, options.models, _log)}")
    return 0


def _convert_fp16(options: argparse.Namespace) -> int:
    from training.pipeline import republish

    name = options.name or f"{options.model}-fp16"
    path = republish.convert_to_fp16(options.model, name, options.data, options.models, _log)
    print(f"published {path}")
    return 0


def _report(options: argparse.Namespace) -> int:
    from training.pipeline import evaluate

    page = evaluate.write_report(options.model, options.data, options.models, options.output, _log)
    print(f"wrote {page}")
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
