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
from service.errors import ExamplesNotFound, ModelNotReady
from service.operations.values import check_supported
from service.registry.registry import ModelRegistry
from service.registry.served_model import ServedModel


def build_list_router(registry: ModelRegistry, limits: BodyLimits) -> APIRouter:
    """Return the route of all cards."""
    routes = APIRouter()

    @routes.get("/v1/models", summary="List the models")
    async def list_models() -> schemas.ModelCards:
        """List the cards of all models, and the limits of requests.

        A card describes the version that responds to paths without a version: the newest version,
        or the pinned version. Any API key may list models.
        """
        return schemas.ModelCards(
            models=[build_card(model, registry) for model in registry.newest()],
            limits=schemas.RequestLimits(
                max_images=limits.max_items, max_body_bytes=limits.max_bytes
            ),
        )

    return routes


def build_router(registry: ModelRegistry, find: FindModel) -> APIRouter:
    """Return the routes of the card and of the calibration of the model that `find` returns."""
    routes = APIRouter()

    @routes.get("", summary="Show the card of a model")
    async def get_model(model: Annotated[ServedModel, Depends(find)]) -> schemas.ModelCard:
        """Show the card of a model: its operations, its input, its calibration and its metrics.

        The digests identify its files, and the images of its training. Any API key may read cards.

        Likely errors: 404 if there is no such model or version.
        """
        return build_card(model, registry)

    @routes.get("/calibration", summary="Show the scores of the calibration")
    async def get_calibration(
        model: Annotated[ServedModel, Depends(find)],
    ) -> schemas.CalibrationScores:
        """Show the anomaly scores of the normal images that the model was calibrated on.

        The p-value of a score is the share of these scores that are at least as high. The score
        itself counts among them. Any API key may read them.

        Likely errors: 404 if the model has no anomaly score.
        """
        manifest = model.manifest
        check_supported(manifest.name, "anomaly-score", manifest.capabilities)
        assert manifest.calibration is not None  # as manifests are checked
        return schemas.CalibrationScores(
            model=manifest.name,
            version=manifest.version,
            method=manifest.calibration.method,
            scores=list(manifest.calibration.scores),
        )

    return routes


def build_examples_router(services: Services, find: FindModel) -> APIRouter:
    """Return the route of the test images of the model that `find` returns."""
    routes = APIRouter()
    timeout = services.body_limits.timeout

    @routes.get(
        "/examples",
        summary="Load test images",
        response_class=FileResponse,
        responses=schemas.EXAMPLES_RESPONSE,
    )
    async def get_examples(model: Annotated[ServedModel, Depends(find)]) -> FileResponse:
        """Load test images to try the model with, as a zip of `LABEL/NAME` or `NAME`.

        The files are PNG or JPEG, and are stored uncompressed in the zip. A card lists
        `examples.zip` in `sha256` if there are some. Any API key that permits an operation may load
        them.

        Likely errors: 404 if the model has none.
        """
        name = model.manifest.name
        if not model.manifest.has_examples:
            raise ExamplesNotFound(
                f"{name} has no test images; `python -m training add-examples {name}` adds some"
            )
        await services.open_models.get(model, time.monotonic() + timeout)  # fetches its files
        path = model.location.directory / EXAMPLES
        if not path.is_file():
            raise ModelNotReady(f"{EXAMPLES} of {name} is gone; restore the bundle, or restart")
        return FileResponse(path, media_type=ZIP, filename=f"{name}-{EXAMPLES}")

    return routes


def build_card(model: ServedModel, registry: ModelRegistry) -> schemas.ModelCard:
    """Return the public part of a model's manifest."""
    manifest = model.manifest
    return schemas.ModelCard(
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


def _summarise(calibration: Calibration) -> schemas.CalibrationSummary:
    levels = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
    quantiles = np.quantile(calibration.scores, levels)
    return schemas.CalibrationSummary(
        method=calibration.method,
        images=len(calibration.scores),
        quantiles={
            str(level): float(value) for level, value in zip(levels, quantiles, strict=True)
        },
    )
