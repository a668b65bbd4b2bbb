"""Routes of the model cards."""

import time
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends
from starlette.responses import FileResponse

from bundle.manifest import EXAMPLES, Calibration
from service.api import schemas
from service.api.dependencies import FindModel, Services
from service.api.media_types import ZIP
from service.api.requests import BodyLimits
from service.errors import OperationNotSupported
from service.registry.registry import ModelRegistry
from service.registry.served_model import ServedModel


def build_list_router(registry: ModelRegistry, limits: BodyLimits) -> APIRouter:
    """Return the route of all cards."""
    routes = APIRouter()

    @routes.get("/v1/models")
    async def list_models() -> schemas.Cards:
        """Cards of the version of each model that responds without one in the path."""
        return schemas.Cards(
            models=[build_card(model, registry) for model in registry.newest()],
            limits=schemas.RequestLimits(
                max_images=limits.max_items, max_body_bytes=limits.max_bytes
            ),
        )

    return routes


def build_router(services: Services, find: FindModel) -> APIRouter:
    """Return the routes of the card, calibration and examples of the model that `find` returns."""
    routes, registry = APIRouter(), services.registry
    timeout = services.body_limits.timeout

    @routes.get("")
    async def show_model(model: Annotated[ServedModel, Depends(find)]) -> schemas.Card:
        """Card of a model."""
        return build_card(model, registry)

    @routes.get("/calibration")
    async def show_calibration(
        model: Annotated[ServedModel, Depends(find)],
    ) -> schemas.CalibrationScores:
        """Anomaly scores of the normal images that the model was calibrated on."""
        manifest = model.manifest
        if manifest.calibration is None:
            raise OperationNotSupported(f"{manifest.name} has no anomaly score")
        return schemas.CalibrationScores(
            model=manifest.name,
            version=manifest.version,
            method=manifest.calibration.method,
            scores=list(manifest.calibration.scores),
        )

    @routes.get("/examples", response_class=FileResponse, responses=schemas.EXAMPLES_RESPONSE)
    async def load_examples(model: Annotated[ServedModel, Depends(find)]) -> FileResponse:
        """Test images to try the model with, as a zip of `LABEL/NAME` or `NAME`."""
        name = model.manifest.name
        if not model.manifest.has_examples:
            raise OperationNotSupported(f"{name} has no examples; add them by `add-examples`")
        await services.open_models.get(model, time.monotonic() + timeout)  # fetches its files
        return FileResponse(
            model.location.directory / EXAMPLES, media_type=ZIP, filename=f"{name}-{EXAMPLES}"
        )

    return routes


def build_card(model: ServedModel, registry: ModelRegistry) -> schemas.Card:
    """Return the public part of a model's manifest."""
    manifest = model.manifest
    return schemas.Card(
        name=manifest.name,
        version=manifest.version,
        versions=registry.versions(manifest.name),
        description=manifest.description,
        architecture=manifest.architecture,
        capabilities=list(manifest.capabilities),
        input=manifest.input,
        latent_dim=manifest.latent_dim,
        metrics=manifest.metrics,
        calibration=_summarise(manifest.calibration) if manifest.calibration else None,
        classes=list(manifest.classes),
        training_data=manifest.training_data,
        sha256=dict(manifest.files),
        encoder=manifest.encoder,
        weak=manifest.selection.weak if manifest.selection else None,
        execution_provider=model.provider,
    )


def _summarise(calibration: Calibration) -> schemas.CalibrationCard:
    levels = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
    quantiles = np.quantile(calibration.scores, levels)
    return schemas.CalibrationCard(
        method=calibration.method,
        images=len(calibration.scores),
        quantiles={
            str(level): float(value) for level, value in zip(levels, quantiles, strict=True)
        },
    )
