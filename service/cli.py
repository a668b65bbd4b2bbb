"""The command line of the online side: serve, score, check, schema."""

import argparse
import gc
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import SettingsError

from bundle.conformal import RATES
from bundle.errors import BundleError, DomainError
from service.app import assemble, build_engine, build_services, create_api, create_app
from service.errors import DeviceError
from service.registry.loader import Loader
from service.registry.registry import ModelRegistry
from service.registry.repository import ModelRepository
from service.server import uvicorn_server
from service.settings import Settings
from service.telemetry import logging

# Seconds for which the device's thread may wait for the interpreter; Python's own 5 ms are long.
SWITCH_INTERVAL = 0.0005


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives 0, or 1 with a message where something is wrong."""
    options = _parser().parse_args(arguments)
    try:
        settings = Settings(
            **{name: value for name, value in vars(options).items() if value is not None}
        )
    except ValidationError as error:
        for (
            wrong
        ) in error.errors():  # of the place only its first part is shown: below it may be a key
            print(
                f"error: setting {wrong['loc'][0] if wrong['loc'] else 's'}: {wrong['msg']}",
                file=sys.stderr,
            )
        return 1
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    try:
        return int(options.command(settings, options))
    except DomainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service", description="Serve autoencoders over HTTP."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve the models of a directory")
    serve.add_argument("--host", help=_help("host"))
    serve.add_argument("--port", type=int, help=_help("port"))
    serve.set_defaults(command=_serve)

    score = commands.add_parser(
        "score", help="score image files, and write a table of what was found"
    )
    score.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="files, folders, and patterns such as 'photos/**/*.png'",
    )
    score.add_argument(
        "--list",
        metavar="FILE",
        help="a file that holds more paths, one a line; - is standard input",
    )
    score.add_argument("--model", required=True, metavar="NAME", help="the model that scores")
    score.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="FILE",
        help="the table, .csv, .jsonl or .parquet; while the "
        "command runs, and where it is ended, FILE.partial holds what is done, and the same command goes on from there",
    )
    score.add_argument(
        "--heatmaps", type=Path, metavar="DIR", help="write a heatmap of each image to this folder"
    )
    score.add_argument(
        "--overlays",
        type=Path,
        metavar="DIR",
        help="write each image to this folder with its heatmap blended over it, as PNG; "
        "with --url, each image is sent twice if there are --heatmaps too",
    )
    score.add_argument(
        "--false-positive-rate",
        type=_rate,
        metavar="RATE",
        help="the share of normal images that may be called anomalous "
        f"(the lowest of {', '.join(map(str, RATES))} that the calibration can tell)",
    )
    score.add_argument(
        "--url",
        metavar="URL",
        help="ask the service that runs there, with the key in AE_API_KEY if it wants one",
    )
    score.set_defaults(command=_score)

    check = commands.add_parser(
        "check", help="say of each bundle and of the device what works and what does not"
    )
    check.set_defaults(command=_check)

    for job in (serve, score, check):
        job.add_argument("--models", type=Path, metavar="DIR", help=_help("models"))
        job.add_argument("--device", choices=("cuda", "auto", "cpu"), help=_help("device"))

    schema = commands.add_parser("schema", help="print the OpenAPI document")
    schema.set_defaults(command=_schema)
    return parser


def _help(setting: str) -> str:
    field = Settings.model_fields[setting]
    return f"{field.description} ({field.default}; AE_{setting.upper()})"


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return rate


def _serve(settings: Settings, _: argparse.Namespace) -> int:
    # Set before models are loaded, for process 1 of a container ignores what it does not handle. uvicorn repeats the
    # signal that ended it, which is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.setswitchinterval(SWITCH_INTERVAL)
    logging.configure(settings.log_format, settings.log_level)
    services = build_services(settings)
    gc.collect()
    gc.freeze()  # what is loaded stays: to look through it again and again would hold requests up
    return uvicorn_server.serve(
        create_app(services),
        settings.host,
        settings.port,
        settings.shutdown_timeout,
        on_ready=lambda address: _print_ready(address, services.registry),
        on_exit=services.admission.drain,
    )


def _print_ready(address: str, registry: ModelRegistry) -> None:
    loaded = ", ".join(registry.names()) or "no model could be loaded"
    providers = (
        ", ".join(sorted({model.provider for model in registry.newest()}))
        or "no execution provider"
    )
    print(f"ready: {address} | models: {loaded} | {providers}", flush=True)


def _score(settings: Settings, options: argparse.Namespace) -> int:
    from service.bulk import job  # what it needs would make a server start later
    from service.bulk.runner import Folders

    logging.configure(settings.log_format, "warning")
    wanted = job.Wanted(
        sources=options.paths,
        listed=options.list,
        model=options.model,
        output=options.output,
        folders=Folders(options.heatmaps, options.overlays),
        false_positive_rate=options.false_positive_rate,
    )
    wanted.check()
    try:
        if options.url:
            job.remote(wanted, options.url, os.environ.get("AE_API_KEY"))
        else:
            services = build_services(settings.model_copy(update=job.BOUNDS))
            try:
                job.local(wanted, services.operations, services.registry, settings.models)
            finally:
                services.executor.close()
    except KeyboardInterrupt:
        goes_on = (
            f"; the same command goes on from {wanted.partial}" if wanted.partial.exists() else ""
        )
        print(f"interrupted{goes_on}", file=sys.stderr)
        return 130
    return 0


def _check(settings: Settings, _: argparse.Namespace) -> int:
    print(f"device policy {settings.device}: ", end="")
    try:
        engine = build_engine(settings)
    except DeviceError as error:
        print(f"FAILED: {error}")
        return 1
    print(f"will try {', '.join(provider.name for provider in engine.candidates)}")
    repository = ModelRepository(settings.models)
    locations, loader = repository.locations(), Loader(repository, engine)
    failures = 0
    for location in locations:
        try:
            model = loader.load(location)
        except (BundleError, DeviceError) as error:
            failures += 1
            print(f"{location}: FAILED: {error}")
        else:
            print(
                f"{location}: works on {model.provider}: {', '.join(model.manifest.capabilities)}"
            )
    print(f"{len(locations) - failures} of {len(locations)} bundles in {settings.models} work")
    return 1 if failures or not locations else 0


def _schema(settings: Settings, _: argparse.Namespace) -> int:
    print(json.dumps(create_api(assemble(settings, ModelRegistry())).openapi(), indent=2))
    return 0
