"""Model repository extension of the Open Inference Protocol: index, load and unload.

Source: docs/protocol/extension_model_repository.md of the Triton Inference Server.
"""

import logging
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Depends

from bundle.errors import BundleError
from service.api import schemas
from service.api.dependencies import ModelPath, Services, build_guard
from service.api.errors import LoadFailed, NotControlled
from service.api.security import ADMIN
from service.errors import ModelNotFound
from service.workers import WorkerSilent

LOAD_SECONDS = 600.0  # in which a worker fetches, verifies and tests a model

logger = logging.getLogger(__name__)

CONTROL_ERRORS = schemas.describe_v2_errors(
    {
        401: "The API key is missing or unknown.",
        400: "A bundle cannot be loaded, or a worker did not respond; what was loaded serves.",
        403: "The API key lacks the right `admin`.",
        404: "There is no such model.",
        409: "Models are not controlled by requests.",
        429: "The API key has sent its requests of a second.",
    }
)
INDEX_ERRORS: dict[int | str, dict[str, Any]] = {
    status: CONTROL_ERRORS[status] for status in (401, 429)
}


def build_router(services: Services) -> APIRouter:
    """Return the routes; load and unload need the right `admin`."""
    routes = APIRouter(prefix="/v2/repository")
    registry, updates = services.registry, services.updates
    guard = Depends(build_guard(services.api_keys))
    admin = Depends(build_guard(services.api_keys, ADMIN))

    @services.peers.answers("load")
    async def take_up(model: str) -> dict[str, str]:
        try:
            await updates.look(model)
        except BundleError as error:
            logger.error("loaded nothing: %s", error)
            return {model: "the models cannot be listed; the log says why"}
        return registry.failures(model)

    @services.peers.answers("unload")
    async def drop(model: str) -> None:
        with suppress(ModelNotFound):  # if this worker alone lacks it
            await updates.unload(model)

    def check_control() -> None:
        if services.model_control != "explicit":
            raise NotControlled(
                f"AE_MODEL_CONTROL is {services.model_control}; models are loaded and unloaded by "
                "requests only if it is explicit"
            )

    async def ask_workers(question: str, model: str) -> dict[int, Any]:
        try:
            return await services.peers.ask_running(question, model, LOAD_SECONDS)
        except WorkerSilent as error:
            raise LoadFailed(str(error)) from None

    @routes.post(
        "/index",
        summary="List all versions",
        dependencies=[guard],
        response_description="All versions, by name and version.",
        responses=INDEX_ERRORS,
    )
    async def repository_index() -> list[schemas.RepositoryEntry]:
        """List every version of every model, and the reasons of those that failed to load.

        The request has no body. Any API key may list them.
        """
        loaded = [(each.manifest.name, str(each.manifest.version)) for each in registry.all()]
        failures = registry.failures()
        entries = [
            schemas.RepositoryEntry(
                name=name,
                version=version,
                state="READY",
                reason=failures.pop(f"{name}/{version}", ""),
            )
            for name, version in loaded
        ]
        for key, reason in failures.items():
            name, version = key.rsplit("/", 1)
            entry = schemas.RepositoryEntry(
                name=name, version=version, state="UNAVAILABLE", reason=reason
            )
            entries.append(entry)
        return sorted(entries, key=lambda entry: (entry.name, entry.version))

    @routes.post(
        "/models/{model}/load",
        summary="Load a model",
        dependencies=[admin],
        responses=CONTROL_ERRORS,
    )
    async def repository_model_load(model: ModelPath) -> schemas.LoadedVersions:
        """Take up new, changed and removed versions of a model, in all workers.

        The request has no body. Each new version is verified and tested, and only then replaces the
        old one. The response lists the versions that can serve.

        Likely errors:

        - 400: a version cannot be loaded.
        - 403: the key lacks the right `admin`.
        - 409: `AE_MODEL_CONTROL` is not `explicit`.
        """
        check_control()
        answers = await ask_workers("load", model)
        failures = {key: why for each in answers.values() for key, why in each.items()}
        if failures:
            raise LoadFailed("; ".join(f"{key}: {reason}" for key, reason in failures.items()))
        registry.check_exists(model)
        return schemas.LoadedVersions(name=model, versions=registry.versions(model))

    @routes.post(
        "/models/{model}/unload",
        summary="Unload a model",
        dependencies=[admin],
        responses=CONTROL_ERRORS,
    )
    async def repository_model_unload(model: ModelPath) -> schemas.LoadedVersions:
        """Unload all versions of a model, in all workers, until it is loaded again.

        The request has no body.

        Likely errors:

        - 403: the key lacks the right `admin`.
        - 404: there is no such model.
        - 409: `AE_MODEL_CONTROL` is not `explicit`.
        """
        check_control()
        registry.check_exists(model)
        await ask_workers("unload", model)
        return schemas.LoadedVersions(name=model, versions=[])

    return routes
