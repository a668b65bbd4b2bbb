"""The command line of training."""

import argparse
import platform
import shlex
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bundle import terminal
from bundle.command_parser import CommandParser, ProgramParser, describe_version
from bundle.errors import DomainError
from training import recipes

if TYPE_CHECKING:  # because its imports take seconds
    from training.pipeline.publish import Published
    from training.progress import Log

GUIDE = "docs/training.md"  # of the JSON documents
_DATA_HELP = "folder of the data; without it, they are downloaded"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    It is 0, 1 after an error with a message, 130 after SIGINT, 141 if nothing reads the output, or
    143 after SIGTERM.
    """
    return terminal.run(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    options = _build_parser().parse_command(arguments, argparse.Namespace(when_interrupted=""))
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return int(options.run(options))
    except (BrokenPipeError, terminal.OutputError):
        raise
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


def _build_parser() -> ProgramParser:
    parser = ProgramParser(
        "training",
        "autoencoder-training",
        _list_versions,
        description="Train autoencoders and publish them.",
        examples=(
            "%(prog)s recipes",
            "%(prog)s train mnist-undercomplete --name my-model",
            "%(prog)s evaluate my-model",
        ),
    )
    _add_train(parser)
    _add_publish(parser)
    _add_model_commands(parser)
    recipes = parser.add_command(
        "recipes",
        "list the recipes that come with the package",
        "%(prog)s",
        "%(prog)s --json",
    )
    recipes.add_json(GUIDE)
    recipes.set_defaults(run=_recipes)
    _add_overview(parser)
    return parser


def _list_versions() -> list[str]:
    packages = describe_version("autoencoder-service"), describe_version("torch")
    return [*packages, f"Python {platform.python_version()}"]


def _add_train(parser: ProgramParser) -> None:
    train = parser.add_command(
        "train",
        "train a recipe and publish it as a bundle",
        "%(prog)s mnist-undercomplete --name my-model",
        "%(prog)s photo-anomaly --data parts --name my-parts",
        "%(prog)s mnist-vae --name my-vae --set training.epochs=60",
    )
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
    train.add_json(GUIDE)
    train.set_defaults(run=_train)


def _add_publish(parser: ProgramParser) -> None:
    publish = parser.add_command(
        "publish",
        "publish a bundle again, such as to a store",
        "%(prog)s models/cookies/5 --models published",
        "%(prog)s models/cookies/5 --models s3://bucket/models",
    )
    publish.add_argument("bundle", type=Path, metavar="DIR", help="such as models/cookies/5")
    _add_destination(publish)
    publish.add_json(GUIDE)
    publish.set_defaults(run=_publish)


def _add_destination(command: CommandParser) -> None:
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


def _add_model_commands(parser: ProgramParser) -> None:
    """Add the commands on a published model."""
    data_help = {
        "calibrate": "a folder of normal images",
        "add-examples": "a folder of images, whose subfolders are labels; only models of MNIST and "
        "Fashion-MNIST need none",
    }
    for name, run, summary, examples in (
        (
            "evaluate",
            _evaluate,
            "measure a published model again on its test images",
            ("mnist-undercomplete", "mnist-undercomplete --data data --json"),
        ),
        (
            "convert-fp16",
            _convert_fp16,
            "publish a model again, computing in fp16 for a GPU",
            ("mnist-undercomplete", "mnist-undercomplete --name my-fp16"),
        ),
        (
            "calibrate",
            _calibrate,
            "publish a model again, calibrated on other normal images, without training",
            ("cookies --data new-cookies", "my-parts --data new-parts --json"),
        ),
        (
            "report",
            _report,
            "draw a published model's report again: an HTML page and PNGs",
            ("mnist-undercomplete", "mnist-undercomplete --output report"),
        ),
        (
            "add-examples",
            _add_examples,
            "publish a model again, with test images to try it with",
            ("mnist-undercomplete", "cookies --data shown"),
        ),
    ):
        whole = [f"%(prog)s {words}" for words in examples]
        command = parser.add_command(name, summary, *whole)
        command.add_argument("model", help="the model's name")
        required = run is _calibrate
        command.add_argument(
            "--data",
            type=Path,
            metavar="DIR",
            required=required,
            help=data_help.get(name, _DATA_HELP),
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
        command.add_json(GUIDE)
        command.set_defaults(run=run)


def _add_overview(parser: ProgramParser) -> None:
    overview = parser.add_command(
        "overview",
        "draw the README's pictures: overview.png and digits.png",
        "%(prog)s",
        "%(prog)s --photo docs/cookie.jpg --output pictures",
    )
    overview.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of MNIST; without it, it is downloaded"
    )
    _add_models(overview)
    overview.add_argument(
        "--photo",
        type=Path,
        default=Path("docs/cookie.jpg"),
        metavar="FILE",
        help="photograph of a cookie (%(default)s)",
    )
    overview.add_argument(
        "--output",
        type=Path,
        default=Path("docs"),
        metavar="DIR",
        help="folder of the pictures (%(default)s)",
    )
    overview.add_json(GUIDE)
    overview.set_defaults(run=_overview)


def _add_models(command: CommandParser) -> None:
    command.add_argument(
        "--models",
        type=_parse_directory,
        default=Path("models"),
        metavar="DIR",
        help="directory of the models (%(default)s)",
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
    models, log = open_destination(options.models), _choose_log(options)
    published: Published | None
    if isinstance(resolved, recipe.DetectorRecipe):
        published = train_detector.run(
            resolved,
            options.data,
            models,
            options.accept_weak,
            log,
            options.compatible,
        )
    elif isinstance(resolved, recipe.EmbeddingRecipe):
        published = embedding.run(resolved, models, log, options.compatible)
    else:
        published = train.run(resolved, options.data, models, options.runs, log, options.compatible)
    if published:  # None: another process of this run publishes
        _print_published(published, options)
    return 0


def _publish(options: argparse.Namespace) -> int:
    from training.pipeline import republish
    from training.pipeline.destinations import open_destination

    models = open_destination(options.models)
    published = republish.publish_again(options.bundle, models, options.compatible)
    _print_published(published, options)
    return 0


def _print_published(published: "Published", options: argparse.Namespace) -> None:
    if options.json:
        terminal.print_json(published._asdict())
    else:
        print(f"published {published.location}")
        if other := published.other_encoder:
            print(f"it encodes unlike version {other}: encode stored images again before a search")
    models = shlex.quote(str(options.models))
    service = terminal.name_module("service")
    terminal.print_next(f"serve it: {service} serve --models {models}")


def _evaluate(options: argparse.Namespace) -> int:
    from training.pipeline import evaluate

    log = _choose_log(options)
    metrics = evaluate.measure(options.model, options.data, options.models, log)
    if options.json:
        terminal.print_json({"model": options.model, "metrics": metrics})
        return 0
    width = max(32, *map(len, metrics))
    with terminal.open_table(("metric", "value"), f"{{:{width}}} {{}}") as add:
        for name, value in metrics.items():
            add(name, f"{value:.6g}")
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    from training.pipeline import republish

    log = _choose_log(options)
    published = republish.recalibrate(options.model, options.data, options.models, log)
    _print_published(published, options)
    return 0


def _add_examples(options: argparse.Namespace) -> int:
    from training.pipeline import republish

    log = _choose_log(options)
    published = republish.add_examples(options.model, options.data, options.models, log)
    _print_published(published, options)
    return 0


def _convert_fp16(options: argparse.Namespace) -> int:
    from training.pipeline import republish

    name, log = options.name or f"{options.model}-fp16", _choose_log(options)
    published = republish.convert_to_fp16(options.model, name, options.data, options.models, log)
    _print_published(published, options)
    return 0


def _report(options: argparse.Namespace) -> int:
    from training.pipeline import evaluate

    log = _choose_log(options)
    page = evaluate.write_report(options.model, options.data, options.models, options.output, log)
    if options.json:
        terminal.print_json({"report": str(page)})
    else:
        print(f"wrote {page}")
    browser = terminal.name_module("webbrowser")
    terminal.print_next(f"open it: {browser} {shlex.quote(page.resolve().as_uri())}")
    return 0


def _recipes(options: argparse.Namespace) -> int:
    found = recipes.descriptions()
    if options.json:
        rows = [{"name": name, "description": text} for name, text in found.items()]
        terminal.print_json({"recipes": rows})
    else:
        with terminal.open_table(("recipe", "description"), "{:24} {}") as add:
            for name, text in found.items():
                add(name, text)
    return 0


def _overview(options: argparse.Namespace) -> int:
    from training.evaluation import overview

    log = _choose_log(options)
    detector, digits = options.output / "overview.png", options.output / "digits.png"
    overview.draw_detector(options.models, options.photo, detector)
    log(f"drew {detector}")
    overview.draw_digits(options.models, options.data, digits)
    log(f"drew {digits}")
    if options.json:
        terminal.print_json({"pictures": [str(detector), str(digits)]})
    return 0


def _choose_log(options: argparse.Namespace) -> "Log":
    """Return the log, which is on standard error if JSON is on standard output."""
    return partial(print, file=sys.stderr if options.json else sys.stdout, flush=True)
