"""Composition root: builds the application from the settings."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI
from starlette.routing import Router
from starlette.types import ASGIApp

from bundle.errors import InvalidParameter
from service import VERSION, cores, memory
from service.api import dependencies, endpoint, errors, openapi, tags
from service.api.dependencies import Services
from service.api.endpoint import PostRouter
from service.api.error_bodies import Failure
from service.api.middleware import (
    EncodedSlashes,
    HeadAsGet,
    InternalErrors,
    ProbesOnly,
    RequestLifecycle,
    create_request_id,
)
from service.api.requests import BodyLimits
from service.api.routes import (
    anomaly_score,
    classify,
    decode,
    denoise,
    docs,
    encode,
    health,
    interpolate,
    metrics,
    models,
    reconstruct,
    repository,
    sample,
)
from service.api.security import ANY_OPERATION, METRICS, ApiKeys, read_bearer
from service.errors import ModelNotFound
from service.inference import TELEMETRY
from service.inference.engine import OnnxEngine
from service.inference.providers import CPU_PROVIDER, GpuOptions
from service.operations import Limits, Operations
from service.playground import page
from service.protocols import embeddings, open_inference
from service.registry.drift import P_VALUE_BINS, DriftMetrics, compute_psi
from service.registry.loader import Loader
from service.registry.open_models import OpenModels
from service.registry.registry import ModelRegistry
from service.registry.repository import ModelRepository, Repository
from service.registry.shared_sessions import SharedSessions
from service.registry.updates import Updates
from service.scheduling.admission import Admission
from service.scheduling.executor import (
    INLINE_SECONDS,
    INLINE_SECONDS_ON_ONE_CORE,
    DeviceExecutor,
)
from service.server.limits import ConnectionLimits, Refusal, Rendered, ServedApp
from service.server.uvicorn_server import Tls
from service.settings import Settings
from service.telemetry.logging import AccessLog
from service.telemetry.metrics import OTHER_LABELS, Metrics
from service.workers import ALONE, Peers, SharedRates, Totals, Worker

if TYPE_CHECKING:  # because they are extras
    from service.protocols.open_inference_grpc import GrpcServer
    from service.telemetry.tracing import Tracing

logger = logging.getLogger(__name__)

OPERATIONS = [
    module.OPERATION
    for module in (
        anomaly_score,
        encode,
        reconstruct,
        denoise,
        classify,
        decode,
        sample,
        interpolate,
    )
]


def build_engine(settings: Settings) -> OnnxEngine:
    """Return the engine of the device policy. Raises DeviceError if the device is unavailable."""
    gpu = GpuOptions(
        tf32=settings.tf32,
        cuda_graphs=settings.cuda_graphs,
        memory=settings.gpu_memory,
        tensorrt=settings.tensorrt,
        tensorrt_cache=settings.tensorrt_cache,
    )
    return OnnxEngine(settings.device, settings.threads, gpu, settings.max_batch_size)


def count_workers(settings: Settings) -> int:
    """Return the number of workers.

    Raises InvalidParameter if there cannot be several, DeviceError if the device is unavailable.
    """
    if settings.workers == 1:
        return 1
    if os.environ[TELEMETRY] != "1":
        raise InvalidParameter(
            f"{TELEMETRY} is {os.environ[TELEMETRY]}, but ONNX Runtime's telemetry has a thread, "
            "which no worker inherits: unset it, or set --workers 1"
        )
    on_cpu = build_engine(settings).candidates[0] == CPU_PROVIDER
    if settings.workers == "auto":
        return max(1, cores.count() // (settings.threads or 1)) if on_cpu else 1
    if not on_cpu:
        raise InvalidParameter(
            f"workers is {settings.workers}, but one process owns a GPU: set --workers 1, or "
            "--device cpu"
        )
    return settings.workers


@contextmanager
def _importing_extra(extra: str, subject: str, alternative: str = "") -> Iterator[None]:
    """Raise InvalidParameter if a module of an extra is not installed, which the subject needs."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise InvalidParameter(
            f"{subject} needs {error.name}: install the extra `{extra}`{alternative}"
        ) from None


def open_repository(settings: Settings) -> Repository:
    """Return the repository of the bundles.

    Raises InvalidParameter for a URL that is no store, or if its extra is not installed.
    """
    if "://" not in settings.models:
        return ModelRepository(Path(settings.models))
    with _importing_extra("stores", settings.models):
        from bundle.stores import BundleStore
        from service.registry.store_repository import StoreRepository
    return StoreRepository(BundleStore(settings.models), settings.model_cache)


def build_services(settings: Settings, worker: Worker = ALONE) -> Services:
    """List every bundle, and return the services around them.

    Raises DeviceError if the device is unavailable, BundleError if the models are.
    """
    services = assemble(settings, worker)
    services.updates.load_all()
    return services


def assemble(settings: Settings, worker: Worker = ALONE) -> Services:
    """Return the services without any model. Raises DeviceError if the device is unavailable."""
    telemetry, registry, peers = Metrics(compute_psi), ModelRegistry(), Peers(worker)
    available = cores.count()
    repository = open_repository(settings)
    # Recorded kernel launches belong to a session, and to the buffers of one model.
    sessions = SharedSessions(build_engine(settings), shares=not settings.cuda_graphs)
    loader = Loader(repository, sessions)
    admission = Admission(settings.max_queued_images, settings.max_queued_bytes, settings.max_share)
    executor = DeviceExecutor(
        settings.max_batch_size,
        settings.max_queue_delay,
        observe=telemetry.count_batch,
        inline_seconds=INLINE_SECONDS if available > 1 else INLINE_SECONDS_ON_ONE_CORE,
    )
    open_models = OpenModels(
        loader,
        registry,
        sessions,
        (settings.model_memory or memory.find_limit() // 2) // worker.count,
        settings.preload or (),
        observe=telemetry.count_load,
        lose_device=executor.lose,
    )
    limits = Limits(
        max_images=settings.max_images,
        max_image_pixels=settings.max_image_pixels,
        max_output_pixels=settings.max_output_pixels,
        request_timeout=settings.request_timeout,
    )
    hit = SharedRates(worker.directory).hit if worker.others else None
    _add_metrics(telemetry, registry, open_models, admission, executor)
    services = Services(
        registry=registry,
        open_models=open_models,
        updates=Updates(repository, loader, registry, open_models),
        model_control=settings.model_control,
        admission=admission,
        executor=executor,
        operations=Operations(
            open_models, admission, executor, limits, max(1, available // worker.count)
        ),
        api_keys=ApiKeys(settings.api_keys, settings.api_keys_file, hit=hit),
        body_limits=BodyLimits(
            settings.max_body_bytes, settings.max_images, settings.request_timeout
        ),
        metrics=telemetry,
        access_log=AccessLog(settings.log_format, settings.log_level, worker.label),
        peers=peers,
        totals=Totals(telemetry, peers),
        playground=settings.playground,
    )
    telemetry.add_gauge(
        "ae_ready_workers", "Workers that are ready.", lambda: services.find_status() == "ready"
    )
    return services


def open_tracing() -> "Tracing":
    """Return the sender of traces.

    Raises InvalidParameter if its extra is not installed, or a variable of its own is invalid.
    """
    with _importing_extra("tracing", "AE_TRACING", ", or unset AE_TRACING"):
        from service.telemetry.tracing import Tracing
    try:
        return Tracing()
    except ValueError as error:
        raise InvalidParameter(f"a variable OTEL_... is invalid: {error}") from None


def _add_metrics(
    telemetry: Metrics,
    registry: ModelRegistry,
    open_models: OpenModels,
    admission: Admission,
    executor: DeviceExecutor,
) -> None:
    """Add the metrics that are read on request: models, gauges and scores."""
    telemetry.add_models(
        lambda: [
            (model.manifest.name, model.manifest.version, model.provider)
            for model in registry.all()
        ],
        registry.failures,
    )
    telemetry.add_gauge("ae_images_in_flight", "Images in flight.", lambda: admission.images)
    telemetry.add_gauge(
        "ae_bytes_in_flight", "Bytes of bodies and responses in flight.", lambda: admission.bytes
    )
    telemetry.add_gauge(
        "ae_open_models", "Models whose graphs are open.", lambda: len(open_models.list())
    )
    telemetry.add_gauge(
        "ae_model_bytes", "Bytes of the graphs of open models.", open_models.count_bytes
    )
    telemetry.add_gauge("ae_queued_images", "Images that wait for the device.", executor.queued)

    def read_scores() -> Iterator[tuple[str, int, DriftMetrics]]:
        for model in registry.all():
            if model.scoring and model.scoring.drift.images:
                manifest = model.manifest
                yield manifest.name, manifest.version, model.scoring.drift.metrics()

    telemetry.add_scores(P_VALUE_BINS, read_scores)


async def _join(services: Services) -> None:
    """Answer the other workers, and unload what they have unloaded."""
    updates, peers = services.updates, services.peers

    @peers.answers("unloaded")
    async def list_unloaded(_: object) -> list[str]:
        return updates.unloaded

    await peers.start()
    unloaded = await peers.ask("unloaded")
    for model in set().union(*unloaded.values()):
        with suppress(ModelNotFound):
            await updates.unload(model)


def _build_router(services: Services, tracing: "Tracing | None") -> ASGIApp:

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            watching = services.model_control == "poll"
            watch = tasks.create_task(services.updates.watch()) if watching else None
            await _join(services)
            yield
            services.peers.stop()
            if watch:
                watch.cancel()
        services.admission.drain()
        services.operations.close()
        services.open_models.close()
        services.executor.close()
        if tracing:
            tracing.close()

    routes = [
        *endpoint.build_routes(services, OPERATIONS),
        *embeddings.build_routes(services),
        *open_inference.build_routes(services),
    ]
    api = HeadAsGet(create_api(services))
    others = Router(redirect_slashes=False, default=api, lifespan=lifespan)
    return PostRouter(routes, default=others)


@dataclass(frozen=True)
class Application:
    """The routes, and what every request passes before them."""

    services: Services
    routes: ASGIApp
    tracing: "Tracing | None" = None

    def wrap(self, routes: ASGIApp) -> ASGIApp:
        """Return the application with these routes."""
        services, trace = self.services, self.tracing.record if self.tracing else None
        return RequestLifecycle(
            InternalErrors(routes), services.metrics, services.access_log, trace
        )


def build_application(services: Services, tracing: "Tracing | None" = None) -> Application:
    """Return the routes of the operations, then those of FastAPI."""
    routes = EncodedSlashes(_build_router(services, tracing))
    return Application(services, routes, tracing)


def create_app(services: Services, tracing: "Tracing | None" = None) -> ASGIApp:
    """Return the application for HTTP."""
    application = build_application(services, tracing)
    return application.wrap(application.routes)


def create_served_app(application: Application) -> ServedApp:
    """Return the application for the server, with its responses to requests that are no HTTP."""
    app, services = application.wrap(application.routes), application.services

    def refuse(refusal: Refusal) -> Rendered:
        request_id = create_request_id()
        failure = Failure(request_id, refusal.status, refusal.code, refusal.detail)
        response = errors.ErrorResponse("/", failure)
        services.metrics.count_request(OTHER_LABELS, refusal.status, 0.0)
        services.metrics.count_error(refusal.code)
        logger.info("refused a request %s: %d %s", request_id, refusal.status, refusal.detail)
        headers = [*response.raw_headers, (b"x-request-id", request_id.encode())]
        return Rendered(headers, bytes(response.body))

    probes_only = RequestLifecycle(ProbesOnly(app), services.metrics, services.access_log)
    return ServedApp(app, probes_only, refuse)


def create_grpc_server(
    application: Application, address: tuple[str, int], tls: Tls, limits: ConnectionLimits
) -> "GrpcServer":
    """Return the server of gRPC. Raises InvalidParameter if its extra is not installed."""
    with _importing_extra("grpc", "AE_GRPC_PORT", ", or unset AE_GRPC_PORT"):
        from service.protocols.open_inference_grpc import GrpcLimits, GrpcServer, Transcoder
    services = application.services
    body = services.body_limits

    def admit(authorization: str | None) -> None:
        services.api_keys.identify(read_bearer(authorization))
        services.admission.check()

    return GrpcServer(
        application.wrap(Transcoder(application.routes, admit)),
        address,
        tls,
        GrpcLimits(limits, body.max_bytes, body.timeout, shared=bool(services.peers.worker.others)),
        is_ready=lambda: services.find_status() == "ready",
    )


def create_api(services: Services) -> FastAPI:
    """Return the FastAPI app: health, metrics, model cards and docs."""
    api = FastAPI(
        title="Autoencoder service",
        version=VERSION,
        generate_unique_id_function=openapi.name_operation,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    errors.install(api)
    _include_routers(api, services)
    limits = services.body_limits
    api.openapi = lambda: openapi.build_document(api, limits)  # type: ignore[method-assign]
    return api


def _include_routers(api: FastAPI, services: Services) -> None:
    registry, guard = services.registry, dependencies.build_guard(services.api_keys)
    guarded = [Depends(guard)]
    of_users = [Depends(dependencies.build_guard(services.api_keys, ANY_OPERATION))]
    exact = dependencies.build_exact_finder(registry)
    newest = dependencies.build_newest_finder(registry)
    finders = dict(zip(endpoint.PREFIXES, (exact, newest), strict=True))
    api.include_router(health.build_router(services), tags=[tags.HEALTH])
    scrapes = [Depends(dependencies.build_guard(services.api_keys, METRICS))]
    measured = metrics.build_router(services.totals)
    api.include_router(measured, tags=[tags.HEALTH], dependencies=scrapes)
    api.include_router(repository.build_router(services), tags=[tags.REPOSITORY])
    listed = models.build_list_router(registry, services.body_limits)
    api.include_router(listed, tags=[tags.MODELS], dependencies=guarded)
    for prefix, find in finders.items():
        card = models.build_router(registry, find)
        api.include_router(card, prefix=prefix, tags=[tags.MODELS], dependencies=guarded)
        images = models.build_examples_router(services, find)
        api.include_router(images, prefix=prefix, tags=[tags.MODELS], dependencies=of_users)
        api.include_router(openapi.build_router(prefix, OPERATIONS, guard))
    api.include_router(embeddings.build_router(registry, guard))
    api.include_router(open_inference.build_router(services))
    api.include_router(docs.build_router())
    api.mount("/swagger", docs.build_assets(), name="swagger")
    if services.playground:
        api.router.routes.extend(page.build_routes())
    else:
        api.include_router(docs.build_redirect())
