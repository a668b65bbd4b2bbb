"""Registry of loaded models, and of bundles that failed to load."""

import logging
from collections.abc import Iterable

from bundle.errors import BundleError
from service.errors import ModelNotFound, ModelNotReady, VersionNotFound
from service.registry.loaded_model import LoadedModel
from service.registry.loader import Loader
from service.registry.repository import BundleLocation

logger = logging.getLogger(__name__)


class ModelRegistry:
    """Loaded models by name and version, and the reasons of failed bundles."""

    def __init__(self) -> None:
        self._loaded: dict[str, dict[int, LoadedModel]] = {}
        self._failed: dict[str, dict[int, str]] = {}

    def load_all(self, locations: Iterable[BundleLocation], loader: Loader) -> None:
        """Load every bundle; a failing bundle is logged and skipped.

        Raises DeviceError if the device fails.
        """
        for location in locations:
            try:
                model = loader.load(location)
            except BundleError as error:
                reason = str(error).replace(f"{location.directory}/", "")  # clients see it
                self._failed.setdefault(location.name, {})[location.version] = reason
                logger.error("skipped %s: %s", location, error)
            else:
                self._loaded.setdefault(location.name, {})[location.version] = model
                logger.info("%s is ready on %s", location, model.provider)

    def get(self, name: str, version: str | None = None) -> LoadedModel:
        """Return a version of a model, or its newest version.

        Raises ModelNotFound, VersionNotFound, or ModelNotReady if it failed to load.
        """
        versions, failed = self._loaded.get(name, {}), self._failed.get(name, {})
        if not versions and not failed:
            raise ModelNotFound(
                f"there is no model {name[:100]!r}; there are: {', '.join(self.names()) or 'none'}"
            )
        if version is None:
            if not versions:
                raise _build_not_ready(f"model {name!r}")
            return versions[max(versions)]
        number = next((known for known in versions | failed if str(known) == version), None)
        if number in versions:
            return versions[number]
        if number in failed:
            raise _build_not_ready(f"version {version} of {name!r}")
        ready = ", ".join(map(str, sorted(versions))) or "none"
        raise VersionNotFound(f"{name!r} has no version {version[:50]!r}; it has: {ready}")

    def names(self) -> list[str]:
        """Return the names of the loaded models."""
        return sorted(self._loaded)

    def versions(self, name: str) -> list[int]:
        """Return the loaded versions of a model."""
        return sorted(self._loaded.get(name, {}))

    def newest(self) -> list[LoadedModel]:
        """Return the newest loaded version of each model."""
        return [self.get(name) for name in self.names()]

    def all(self) -> list[LoadedModel]:
        """Return all loaded models, in all versions."""
        return [model for versions in self._loaded.values() for model in versions.values()]

    def failures(self) -> dict[str, str]:
        """Return the reasons of failed bundles by `name/version`."""
        failed = self._failed.items()
        return {
            f"{name}/{version}": reason
            for name, versions in failed
            for version, reason in versions.items()
        }


def _build_not_ready(subject: str) -> ModelNotReady:
    return ModelNotReady(f"{subject} could not be loaded; the log and `check` have the reason")
