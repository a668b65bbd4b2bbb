"""Command line of the service: serve, score, check, schema."""

import argparse
import gc
import json
import os
import platform
import re
import shlex
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError
from pydantic_settings import SettingsError

from bundle import terminal
from bundle.command_parser import CommandParser, ProgramParser, describe_version
from bundle.conformal import RATES
from bundle.errors import BundleError, DomainError, InvalidParameter
from service import VERSION, cores
from service.api.dependencies import Services
from service.app import (
    assemble,
    build_application,
    build_engine,
    build_services,
    count_workers,
    create_api,
    create_grpc_server,
    create_served_app,
    open_repository,
    open_tracing,
)
from service.errors import DeviceError
from service.keys import EXAMPLE, NAME_PATTERN, RIGHTS, create_key
from service.operations import Operations
from service.registry.loader import Loader
from service.registry.registry import ModelRegistry
from service.registry.repository import BundleLocation
from service.registry.shared_sessions import SharedSessions
from service.server import uvicorn_server
from service.server.connections import limit_by_files
from service.server.limits import ConnectionLimits
from service.settings import END_SECONDS, Settings, find_unknown
from service.telemetry import logging
from service.workers import ALONE, Worker, open_directory
from service.workers.processes import ForkedProcesses
from service.workers.supervisor import Supervisor

if TYPE_CHECKING:
    from service.bulk.job import Request, ScoreJob, ScoringModel, Shard, Summary

# Longest wait of the device's thread for the interpreter. Python's default is 5 ms.
SWITCH_INTERVAL_SECONDS = 0.0005
GUIDE = "docs/operations.md"  # of the JSON documents
GRPC_NAMES = "--host or AE_GRPC_PORT"
INTERRUPTED_STATUS = 130  # by SIGINT, as shells show it
DEVICE_LOST_STATUS = 74  # an input or output error, by sysexits.h


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns its exit status, which is 1 after an error message."""
    return terminal.run(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    options = _build_parser().parse_command(arguments)
    if unknown := find_unknown(os.environ):
        for line in unknown:
            print(f"error: {line}", file=sys.stderr)
        return 1
    overrides = {name: value for name, value in vars(options).items() if value is not None}
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        _print_invalid(error)
        return 1
    except SettingsError:  # its text can hold an API key
        print(f"error: AE_API_KEYS is not JSON; write it like {EXAMPLE}", file=sys.stderr)
        return 1
    return _report(lambda: int(options.command(settings, options)))


def _report(run: Callable[[], int]) -> int:
    """Return the exit status of a run, or 1 after its error message."""
    try:
        return run()
    except DomainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _print_invalid(error: ValidationError) -> None:
    for problem in error.errors():
        # Only the name of the setting, because the rest of the location can hold an API key.
        subject = f"setting {problem['loc'][0]}" if problem["loc"] else "settings"
        fix = f"; write them like {EXAMPLE}" if subject == "setting api_keys" else ""
        print(f"error: {subject}: {problem['msg']}{fix}", file=sys.stderr)


def _build_parser() -> ProgramParser:
    parser = ProgramParser(
        "service",
        "autoencoder-service",
        _list_versions,
        description="Serve autoencoders over HTTP.",
        examples=(
            "%(prog)s serve",
            "%(prog)s check",
            "%(prog)s score docs/images --model mnist-undercomplete --output scores.csv",
        ),
    )
    serve = parser.add_command(
        "serve",
        "serve the models of a directory",
        "%(prog)s",
        "%(prog)s --port 8080 --workers auto",
        "%(prog)s --models models/cookies/5 --device cpu",
    )
    serve.add_argument("--host", help=_describe("host"))
    serve.add_argument("--port", type=int, help=_describe("port"))
    serve.add_argument("--workers", metavar="N|auto", help=_describe("workers"))
    serve.set_defaults(command=_serve)
    score = _add_score(parser)
    check = parser.add_command(
        "check",
        "load each bundle, and print which of them work",
        "%(prog)s",
        "%(prog)s --models models/cookies/5 --device cpu --json",
    )
    check.add_json(GUIDE)
    check.set_defaults(command=_check)
    for command in (serve, score, check):
        command.add_argument("--models", metavar="DIR|URL", help=_describe("models"))
        command.add_argument("--device", choices=("cuda", "auto", "cpu"), help=_describe("device"))
    _add_create_key(parser)
    schema = parser.add_command(
        "schema",
        "print the OpenAPI document",
        "%(prog)s > openapi.json",
        "%(prog)s | head",
    )
    schema.set_defaults(command=_schema)
    return parser


def _list_versions() -> list[str]:
    runtime = describe_version("onnxruntime", "onnxruntime-gpu")
    return [f"autoencoder-service {VERSION}", runtime, f"Python {platform.python_version()}"]


def _add_create_key(parser: ProgramParser) -> None:
    key = parser.add_command(
        "create-key",
        "print a new API key, and its entry",
        "%(prog)s camera-1 --right encode --right anomaly-score",
        "%(prog)s prometheus --right metrics --json",
    )
    key.add_argument("name", type=_parse_key_name, metavar="NAME", help="who will use it")
    key.add_argument(
        "--right",
        action="append",
        choices=RIGHTS,
        default=[],
        metavar="RIGHT",
        help="an operation, * for all operations, metrics or admin; repeatable (none)",
    )
    key.add_json(GUIDE)
    key.set_defaults(command=_create_key)


def _add_score(parser: ProgramParser) -> CommandParser:
    score = parser.add_command(
        "score",
        "score image files, and write a table of the scores",
        "%(prog)s docs/images --model mnist-undercomplete --output scores.csv",
        "%(prog)s 'docs/**/*.jpg' --model cookies --output cookies.jsonl --heatmaps heatmaps",
        "find docs/images -name '*.png' | "
        "%(prog)s --list - --model mnist-vae --output digits.csv --json",
    )
    _add_score_inputs(score)
    _add_score_outputs(score)
    score.add_json(GUIDE)
    score.set_defaults(command=_score)
    return score


def _add_score_inputs(score: argparse.ArgumentParser) -> None:
    score.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="files, folders, patterns such as 'photos/**/*.png', and s3:// or gs:// URLs of "
        "folders",
    )
    score.add_argument(
        "--list",
        metavar="FILE",
        help="a file of paths of more local files, one per line; - is standard input",
    )
    score.add_argument(
        "--shard",
        type=_parse_shard,
        metavar="I/N",
        help="score only shard I of N, with I from 0 to N-1; FILE gets I and N in its name",
    )
    score.add_argument("--model", required=True, metavar="NAME", help="the model that scores")
    score.add_argument(
        "--false-positive-rate",
        type=_parse_rate,
        metavar="RATE",
        help="share of normal images that may be called anomalous (default: the lowest of "
        f"{', '.join(map(str, RATES))} that the calibration allows)",
    )
    score.add_argument(
        "--url",
        metavar="URL",
        help="score with the service at this URL, with the API key in AE_API_KEY if it needs one",
    )


def _add_score_outputs(score: argparse.ArgumentParser) -> None:
    score.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="the table, .csv, .jsonl or .parquet; FILE.partial holds the rows of an unfinished "
        "run, which the same command resumes; with --engine ray, a folder or URL of Parquet files",
    )
    score.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="score in this process, or in actors on the Ray cluster at RAY_ADDRESS or this "
        "machine (%(default)s)",
    )
    score.add_argument(
        "--actors",
        type=_parse_count,
        metavar="N",
        help="actors of Ray, of AE_THREADS CPUs each, or of a GPU with --device cuda (default: as "
        "many as have room)",
    )
    score.add_argument(
        "--heatmaps", type=Path, metavar="DIR", help="write a heatmap of each image to this folder"
    )
    score.add_argument(
        "--overlays",
        type=Path,
        metavar="DIR",
        help="write each image, blended with its heatmap, to this folder as PNG; "
        "with --url and --heatmaps, each image is sent twice",
    )


def _parse_shard(text: str) -> "Shard":
    from service.bulk.job import Shard

    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(
            f"{text} is no shard; write I/N, such as 0/16, with I from 0 to N-1"
        )
    return Shard(int(index), int(count))


def _describe(setting: str) -> str:
    field = Settings.model_fields[setting]
    return f"{field.description} ({field.default}; AE_{setting.upper()})"


def _parse_key_name(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no name of a key; use 1 to 64 letters, digits, '.', '_' or '-'"
        )
    return text


def _parse_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 1")
    return int(text)


def _parse_rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return rate


def _print(line: str) -> None:
    try:
        print(line, flush=True)
    except OSError:  # the service is as good without this line
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _serve(settings: Settings, _: argparse.Namespace) -> int:
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    logging.configure(settings.log_format, settings.log_level)
    workers = count_workers(settings)
    with _bind(settings) as listener:
        if settings.grpc_port:
            _bind_address(settings.host, settings.grpc_port, GRPC_NAMES).close()
        _check_access(settings, listener)
        if workers > 1:
            return _serve_by_workers(listener, settings, workers)
        return _serve_on(listener, settings)


def _serve_by_workers(listener: socket.socket, settings: Settings, count: int) -> int:
    share = settings.divide(count, cores.count())
    with ExitStack() as stack:
        if listener.family != socket.AF_UNIX:
            listener = stack.enter_context(uvicorn_server.share(listener))
        if settings.grpc_port is not None:
            grpc = _bind_address(settings.host, settings.grpc_port, GRPC_NAMES)
            grpc = stack.enter_context(uvicorn_server.share(grpc))
            share = share.model_copy(update={"grpc_port": grpc.getsockname()[1]})
        directory = stack.enter_context(open_directory())

        def run(number: int, announce: Callable[[str], None], beat: Callable[[], None]) -> int:
            logging.configure(settings.log_format, settings.log_level, number)
            worker = Worker(number, count, directory)
            return _report(lambda: _serve_on(_open_own(listener), share, worker, announce, beat))

        gc.collect()
        gc.freeze()  # because collections would copy the memory that workers share
        processes = stack.enter_context(ForkedProcesses(run))
        seconds = settings.shutdown_delay + settings.shutdown_timeout + END_SECONDS
        supervisor = Supervisor(
            processes, count, lambda line: _print(f"{line} | {count} workers"), seconds
        )
        return supervisor.run()


def _open_own(listener: socket.socket) -> socket.socket:
    """Return a worker's own socket, by which the kernel spreads connections; none has a path."""
    if listener.family == socket.AF_UNIX:
        return listener
    host, port = listener.getsockname()[:2]
    return uvicorn_server.bind(host, port, shared=True)


def _serve_on(
    listener: socket.socket,
    settings: Settings,
    worker: Worker = ALONE,
    announce: Callable[[str], None] = _print,
    beat: Callable[[], None] = lambda: None,
) -> int:
    """Serve until a signal, and return the exit status.

    `announce` is called when ready, and `beat` every few seconds from then on.
    """
    tls = uvicorn_server.Tls(settings.tls_certificate, settings.tls_key)
    try:
        tls.check()
    except OSError as error:  # of which ssl.SSLError is one
        raise InvalidParameter(f"AE_TLS_CERTIFICATE or AE_TLS_KEY is unusable: {error}") from None
    tracing = open_tracing() if settings.tracing else None
    services = build_services(settings, worker)
    gc.collect()
    gc.freeze()  # because collections that visit the loaded models would delay requests
    limits = ConnectionLimits(
        limit_by_files(settings.max_connections, 1 if settings.grpc_port is None else 2),
        settings.head_timeout,
        settings.idle_timeout,
        settings.send_timeout,
    )
    shutdown = uvicorn_server.Shutdown(
        settings.shutdown_delay,
        settings.shutdown_timeout,
        on_signal=services.admission.leave,
        must_end=lambda: services.executor.lost is not None,
    )
    application = build_application(services, tracing)
    companions = []
    if settings.grpc_port is not None:
        address = settings.host, settings.grpc_port
        companions.append(create_grpc_server(application, address, tls, limits))

    def announce_ready() -> None:
        addresses = [uvicorn_server.describe(listener, tls)]
        addresses += [companion.describe() for companion in companions]
        announce(_describe_ready(" and ".join(addresses), services.registry))

    status = uvicorn_server.serve(
        create_served_app(application),
        listener,
        limits,
        shutdown,
        on_ready=announce_ready,
        on_hangup=services.updates.request_look,
        on_beat=beat,
        tls=tls,
        companions=companions,
    )
    return DEVICE_LOST_STATUS if services.executor.lost else status


def _check_access(settings: Settings, listener: socket.socket) -> None:
    """Raise InvalidParameter if anyone in the network could use the service without a key."""
    keys = settings.api_keys or settings.api_keys_file
    public = uvicorn_server.is_public(listener) or (
        settings.grpc_port is not None and uvicorn_server.is_public_host(settings.host)
    )
    if keys or settings.open_access or not public:
        return
    raise InvalidParameter(
        f"{settings.host} can be reached by others, and no API key is needed: set AE_API_KEYS or "
        "AE_API_KEYS_FILE, or AE_OPEN_ACCESS=true to serve everyone"
    )


def _bind(settings: Settings) -> socket.socket:
    """Bind the address before models are loaded, which takes longer. Raises InvalidParameter."""
    if settings.unix_socket is None:
        return _bind_address(settings.host, settings.port, "--host or --port")
    try:
        return uvicorn_server.bind_unix(settings.unix_socket)
    except OSError as error:
        raise InvalidParameter(
            f"{settings.unix_socket} cannot be listened on: {error}; choose another"
        ) from None


def _bind_address(host: str, port: int, names: str) -> socket.socket:
    try:
        return uvicorn_server.bind(host, port)
    except OSError as error:
        raise InvalidParameter(
            f"{host}:{port} cannot be listened on: {error}; choose another {names}"
        ) from None


def _describe_ready(address: str, registry: ModelRegistry) -> str:
    loaded = ", ".join(registry.names()) or "none; the log has the reasons"
    providers = (
        ", ".join(sorted({model.provider for model in registry.all()})) or "no execution provider"
    )
    return f"ready: {address} | models: {loaded} | {providers}"


def _score(settings: Settings, options: argparse.Namespace) -> int:
    from service.bulk.job import Request  # because it would delay the start of a server

    logging.configure(settings.log_format, "warning")
    request = Request(
        options.paths, options.list, options.model, options.false_positive_rate, options.shard
    )
    if options.engine == "ray":
        return _score_by_ray(request, settings, options)
    return _score_here(request, settings, options)


def _score_here(request: "Request", settings: Settings, options: argparse.Namespace) -> int:
    from service.bulk.job import ScoreJob
    from service.bulk.runner import Folders

    if options.actors:
        raise InvalidParameter("--actors needs --engine ray")
    output = Path(options.output)
    output = request.shard.name_output(output) if request.shard else output
    folders = Folders(options.heatmaps, options.overlays)
    job = ScoreJob(request, output, folders)
    if job.is_complete_shard:
        _print_complete(output, options.json)
        return 0
    job.check()
    try:
        summary = _run_job(job, settings, options.url)
    except KeyboardInterrupt:
        resume = f"; rerun to resume from {job.partial}" if job.partial.exists() else ""
        print(f"interrupted{resume}", file=sys.stderr)
        return INTERRUPTED_STATUS
    _print_summary(summary, str(output), options.json)
    for name, folder in folders._asdict().items():
        if folder:
            terminal.print_next(f"{name}s: {folder}")
    terminal.print_next(f"read the table: {_name_reader(output)}")
    return 0


def _print_complete(output: Path, as_json: bool) -> None:
    if as_json:
        terminal.print_json({"output": str(output), "was_complete": True})
    else:
        print(f"{output}: complete, so nothing is scored; remove it to score this shard again")


def _print_summary(summary: "Summary", output: str, as_json: bool) -> None:
    if as_json:
        document = {"output": output, "was_complete": False, **summary.as_document()}
        terminal.print_json(document)
    else:
        print(f"{output}: {summary}")


def _name_reader(output: Path | str) -> str:
    """Return the command that shows a table."""
    if isinstance(output, Path) and output.suffix.lower() != ".parquet":
        return f"less {shlex.quote(str(output))}"
    code = f"import pyarrow.parquet as parquet; print(parquet.read_table({str(output)!r}))"
    return f"{terminal.name_python()} -c {shlex.quote(code)}"


def _run_job(job: "ScoreJob", settings: Settings, url: str | None) -> "Summary":
    from service.bulk.job import WORKERS, build_settings, score_locally, score_remotely

    if url:
        return score_remotely(job, url, os.environ.get("AE_API_KEY"))
    update = build_settings(WORKERS, job.request.model)
    with _opening(settings.model_copy(update=update)) as services:
        return score_locally(job, services.operations, services.registry, settings.models)


@contextmanager
def _opening(settings: Settings) -> Iterator[Services]:
    services = build_services(settings)
    try:
        yield services
    finally:
        services.open_models.close()
        services.executor.close()


def _score_by_ray(request: "Request", settings: Settings, options: argparse.Namespace) -> int:
    from service.bulk.job import build_settings, locate_models

    for option in ("url", "shard", "heatmaps", "overlays"):
        if getattr(options, option):
            raise InvalidParameter(f"--{option} is not for --engine ray; omit one of the two")
    try:
        from service.bulk.ray_engine import RayJob, Resources, score
    except ImportError:
        raise InvalidParameter(
            "--engine ray needs Ray: run pip install '.[ray]' in the checkout"
        ) from None
    resources = Resources(settings.threads or 1, int(settings.device == "cuda"))
    job = RayJob(request, options.output, options.actors, resources)
    table = job.check()
    source = locate_models(settings.models)
    update = {
        "models": source,
        "device": "cuda" if resources.gpus else "cpu",
        "threads": resources.cpus,
        **build_settings(resources.workers, request.model),
    }
    settings = settings.model_copy(update=update)
    version = request.find_interrupted_version(table.read_run(), source)
    model = _choose_model(request, version, settings.model_copy(update={"device": "cpu"}))
    try:
        summary = score(job, model, table, partial(_open_models, settings))
    except KeyboardInterrupt:
        print("interrupted; rerun to resume", file=sys.stderr)
        return INTERRUPTED_STATUS
    _print_summary(summary, options.output, options.json)
    terminal.print_next(f"read the table: {_name_reader(options.output)}")
    return 0


def _choose_model(request: "Request", version: str | None, settings: Settings) -> "ScoringModel":
    """Choose a model in a function, so that its memory is free while actors score."""
    with _opening(settings) as services:
        return request.choose_loaded(services.registry.get(request.model, version), settings.models)


def _open_models(settings: Settings) -> tuple[Operations, ModelRegistry]:
    services = build_services(settings)
    return services.operations, services.registry


@dataclass(frozen=True)
class _CheckedBundle:
    """A bundle that works on an execution provider, or does not, because of an error."""

    name: str
    version: int
    provider: str | None = None
    operations: tuple[str, ...] = ()
    error: str | None = None

    def describe(self) -> tuple[str, str, str]:
        """Return the bundle, the result and its details."""
        bundle = f"{self.name} version {self.version}"
        if self.error is not None:
            return bundle, "FAILED", self.error
        return bundle, f"works on {self.provider}", ", ".join(self.operations)


def _check(settings: Settings, options: argparse.Namespace) -> int:
    try:
        engine = build_engine(settings)
    except DeviceError as error:
        if options.json:
            raise
        print(f"FAILED: {error}")
        return 1
    candidates = [provider.name for provider in engine.candidates]
    if not options.json:
        print(f"device policy {settings.device}: will try {', '.join(candidates)}")
    repository = open_repository(settings)
    locations, loader = repository.locations(), Loader(repository, SharedSessions(engine))
    checks = [*_show_checks(_check_bundles(locations, loader), options.json)]
    working = sum(checked.error is None for checked in checks)
    if options.json:
        terminal.print_json(
            {
                "models": settings.models,
                "device": settings.device,
                "candidates": candidates,
                "bundles": [asdict(checked) for checked in checks],
                "working": working,
            }
        )
    else:
        print(f"{working} of {len(checks)} bundles in {settings.models} work")
    return 1 if working < len(checks) or not checks else 0


def _check_bundles(locations: Sequence[BundleLocation], loader: Loader) -> Iterator[_CheckedBundle]:
    for location in locations:
        try:
            model = loader.index(location)
            loader.fetch(model)
            provider = loader.open(model).provider
        except (BundleError, DeviceError) as error:
            yield _CheckedBundle(location.name, location.version, error=str(error))
        else:
            operations = model.manifest.capabilities
            yield _CheckedBundle(location.name, location.version, provider, operations)


def _show_checks(checks: Iterable[_CheckedBundle], as_json: bool) -> Iterator[_CheckedBundle]:
    """Print each check when it is made, unless JSON follows with all."""
    if as_json:
        yield from checks
        return
    with terminal.open_table(("bundle", "result", "operations or reason"), "{}: {}: {}") as add:
        for checked in checks:
            add(*checked.describe())
            yield checked


def _create_key(_: Settings, options: argparse.Namespace) -> int:
    key, entry = create_key(options.name, options.right)
    if options.json:
        terminal.print_json({"key": key, "entry": json.loads(entry)})
    else:
        print(f"key: {key}\nentry for AE_API_KEYS or its file: {entry}")
    serve = f"{terminal.name_module('service')} serve"
    terminal.print_next(f"serve with it: AE_API_KEYS={shlex.quote(entry)} {serve}")
    return 0


def _schema(settings: Settings, _: argparse.Namespace) -> int:
    services = assemble(settings.model_copy(update={"device": "cpu"}))
    terminal.print_json(create_api(services).openapi())
    return 0
