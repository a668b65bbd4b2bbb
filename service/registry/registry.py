"""The registry: models that are loaded, and bundles that could not be."""

import logging
from collections.abc import Iterable

from bundle.errors import BundleError
from service.errors import ModelNotFound, ModelNotReady, VersionNotFound
from service.registry.loaded_model import LoadedModel
from service.registry.loader import Loader
from service.registry.repository import BundleLocation

logger = logging.getLogger(__name__)


class ModelRegistry:
    """Loaded models by name and version, and the reasons why others failed."""

    def __init__(self) -> None:
        self._loaded: dict[str, dict[int, LoadedModel]] = {}
        self._failed: dict[str, dict[int, str]] = {}

    def load_all(self, locations: Iterable[BundleLocation], loader: Loader) -> None:
        """Load every bundle; a failing one is logged and left out. Raises DeviceError if the device fails."""
        for location in locations:
            try:
                model = loader.load(location)
            except BundleError as error:
                self._failed.setdefault(location.name, {})[location.version] = str(error)
                logger.error("%s is left out: %s", location, error)
            else:
                self._loaded.setdefault(location.name, {})[location.version] = model
                logger.info("%s is ready on %s", location, model.provider)

    def get(self, name: str, version: str | None = None) -> LoadedModel:
        """A version of a model, or its newest that is ready.

        Raises ModelNotFound, VersionNotFound, or ModelNotReady if it exists but could not be loaded.
        """
        versions, failed = self._loaded.get(name, {}), self._failed.get(name, {})
        if not versions and not failed:
            raise ModelNotFound(
                f"there is no model {name[:100]!r}; there are: {', '.join(self.names()) or 'none'}"
            )
        if version is None:
            if not versions:
                raise ModelNotReady(
                    f"model {name!r} could not be loaded; the log and `check` say why"
                )
            return versions[max(versions)]
        number = next((known for known in versions | failed if str(known) == version), None)
        if number in versions:
            return versions[number]
        if number in failed:
            raise ModelNotReady(
                f"version {version} of {name!r} could not be loaded; the log and `check` say why"
            )
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
        """Reasons why bundles could not be loaded, by `name/version`."""
        failed = self._failed.items()
        return {
            f"{name}/{version}": why
            for name, versions in failed
            for version, why in versions.items()
        }
