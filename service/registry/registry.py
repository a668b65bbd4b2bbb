"""Which models are loaded: each opened, warmed, and tested on its golden vectors before it serves."""

import logging

from bundle.errors import BundleError
from service.errors import ModelNotFound, ModelNotReady, VersionNotFound
from service.inference.engine import Engine
from service.registry.loaded_model import LoadedModel
from service.registry.loader import load
from service.registry.repository import ModelRepository

logger = logging.getLogger(__name__)


class ModelRegistry:
    """The loaded models by name and version, and why others are not."""

    def __init__(self) -> None:
        self._loaded: dict[str, dict[int, LoadedModel]] = {}
        self._failed: dict[str, dict[int, str]] = {}

    def load_all(self, repository: ModelRepository, engine: Engine) -> None:
        """Load every bundle; one that fails is reported and left out. Raises DeviceError where the device fails."""
        for place in repository.places():
            try:
                model = load(place, repository.read(place), engine)
            except BundleError as error:
                self._failed.setdefault(place.name, {})[place.version] = str(error)
                logger.error("%s is left out: %s", place, error)
            else:
                self._loaded.setdefault(place.name, {})[place.version] = model
                logger.info("%s is ready on %s", place, model.provider)

    def get(self, name: str, version: str | None = None) -> LoadedModel:
        """A version of a model, or its newest that is ready.

        Raises ModelNotFound, VersionNotFound, or ModelNotReady where it exists but could not be loaded.
        """
        versions, failed = self._loaded.get(name, {}), self._failed.get(name, {})
        if not versions and not failed:
            raise ModelNotFound(f"there is no model {name[:100]!r}; there are: {', '.join(self.names()) or 'none'}")
        if version is None:
            if not versions:
                raise ModelNotReady(f"model {name!r} could not be loaded; the log and `check` say why")
            return versions[max(versions)]
        number = next((known for known in versions | failed if str(known) == version), None)
        if number in versions:
            return versions[number]
        if number in failed:
            raise ModelNotReady(f"version {version} of {name!r} could not be loaded; the log and `check` say why")
        ready = ", ".join(map(str, sorted(versions))) or "none that is ready"
        raise VersionNotFound(f"{name!r} has no version {version[:50]!r}; it has: {ready}")

    def names(self) -> list[str]:
        """The names of the models that have a version ready."""
        return sorted(self._loaded)

    def versions(self, name: str) -> list[int]:
        """The versions of a model that are ready."""
        return sorted(self._loaded.get(name, {}))

    def newest(self) -> list[LoadedModel]:
        """The newest ready version of each model."""
        return [self.get(name) for name in self.names()]

    def all(self) -> list[LoadedModel]:
        """Every model that is ready, in all versions."""
        return [model for versions in self._loaded.values() for model in versions.values()]

    def failures(self) -> dict[str, str]:
        """Why bundles are left out, by `name/version`."""
        failed = self._failed.items()
        return {f"{name}/{version}": why for name, versions in failed for version, why in versions.items()}
