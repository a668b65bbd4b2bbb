"""The composition root: settings in, application out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from starlette.types import ASGIApp

from service import cores
from service.api import errors, middleware, openapi
from service.api.dependencies import Services, State, Target, exact, guard, newest
from service.api.endpoint import Dispatch
from service.api.middleware import Exchange, HeadAsGet
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
    sample,
)
from service.api.security import ApiKeys
from service.inference.engine import OnnxEngine
from service.inference.providers import GpuOptions
from service.operations import Limits, Operations
from service.registry.drift import P_VALUES
from service.registry.registry import ModelRegistry
from service.registry.repository import ModelRepository
from service.scheduling.executor import SHORT, SHORT_ON_ONE_CORE, DeviceExecutor
from service.settings import Settings
from service.telemetry.metrics import Metrics

VERSION = "0.1.0"
PREFIXES: dict[str, Target] = {"/v1/models/{model}/versions/{version}": exact, "/v1/models/{model}": newest}
OPERATIONS = [
    module.OPERATION for module in (encode, decode, reconstruct, denoise, sample, anomaly_score, interpolate, classify)
]


def build_engine(settings: Settings) -> OnnxEngine:
    """Raises DeviceError where the device policy cannot be kept."""
    gpu = GpuOptions(
        tf32=settings.tf32,
        cuda_graphs=settings.cuda_graphs,
        memory=settings.gpu_memory,
        tensorrt=settings.tensorrt,
        tensorrt_cache=settings.tensorrt_cache,
    )
    return OnnxEngine(settings.device, settings.threads, gpu, settings.max_batch_size)


def build_services(settings: Settings) -> Services:
    """Load every bundle. Raises DeviceError where the device policy cannot be kept, BundleError without a directory."""
    registry = ModelRegistry()
    registry.load_all(ModelRepository(settings.models), build_engine(settings))
    return assemble(settings, registry)


def assemble(settings: Settings, registry: ModelRegistry) -> Services:
    """What the application is made of, around the models of a registry."""
    telemetry = Metrics()
    executor = DeviceExecutor(
        settings.max_queued_images,
        settings.max_queued_bytes,
        settings.max_batch_size,
        settings.max_queue_delay,
        watch=telemetry.batch,
        short=SHORT if cores.available() > 1 else SHORT_ON_ONE_CORE,
    )
    limits = Limits(
        max_images=settings.max_images,
        max_image_pixels=settings.max_image_pixels,
        max_output_pixels=settings.max_output_pixels,
        request_timeout=settings.request_timeout,
    )
    body_limits = BodyLimits(settings.max_body_bytes, settings.max_images, settings.request_timeout)
    for model in registry.all():
        telemetry.model(model.manifest.name, model.manifest.version, model.provider)
    telemetry.gauge("ae_images_in_flight", "Images of requests that are being answered.", lambda: executor.images)
    telemetry.gauge("ae_bytes_in_flight", "Bytes of bodies that came for these requests.", lambda: executor.bytes)
    telemetry.scores(
        P_VALUES,
        lambda: [
            (model.manifest.name, model.manifest.version, model.drift.figures())
            for model in registry.all()
            if model.drift
        ],
    )
    operations = Operations(executor, limits)
    return Services(registry, executor, operations, ApiKeys(settings.api_keys), body_limits, telemetry)


def create_app(services: Services) -> ASGIApp:
    """The application around loaded models: FastAPI's, with a shorter way to the operations before it."""
    inner = Dispatch(HeadAsGet(create_api(services)), OPERATIONS)
    return Exchange(middleware.InternalErrors(inner), services.metrics)


def create_api(services: Services) -> FastAPI:
    """What is asked for less often, the documents of all, and the lifespan."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        yield {"services": services}
        services.executor.close()

    api = FastAPI(
        title="Autoencoder service",
        version=VERSION,
        description="Encode, decode, reconstruct, denoise, sample and score images with autoencoders.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    errors.install(api)
    api.include_router(health.router(), tags=["health"])
    guarded = [Depends(guard)]
    api.include_router(metrics.router(), tags=["health"], dependencies=guarded)
    api.include_router(models.listing(), tags=["models"], dependencies=guarded)
    for prefix, target in PREFIXES.items():
        api.include_router(models.router(target), prefix=prefix, tags=["models"], dependencies=guarded)
    api.openapi = lambda: openapi.document(api, list(PREFIXES), OPERATIONS)  # type: ignore[method-assign]
    api.include_router(docs.router())
    api.mount("/swagger", docs.assets(), name="swagger")
    return api
