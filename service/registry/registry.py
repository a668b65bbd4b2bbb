"""Registry of loaded models, and of bundles that failed to load."""

from typing import TypeVar

from bundle.manifest import PIN
from service.errors import ModelNotFound, ModelNotReady, VersionNotFound
from service.registry.loaded_model import LoadedModel
from service.registry.repository import BundleLocation

Kept = TypeVar("Kept")


class ModelRegistry:
    """Loaded models by name and version, and the reasons of failed bundles."""

    def __init__(self) -> None:
        self._loaded: dict[str, dict[int, LoadedModel]] = {}
        self._failed: dict[str, dict[int, str]] = {}
        self._pinned: dict[str, int] = {}
        self._pin_failures: dict[str, str] = {}

    def put(self, model: LoadedModel) -> None:
        """Add a loaded model, in place of the same version if any."""
        manifest = model.manifest
        # A copy, because other threads may iterate over the former.
        versions = self._loaded.get(manifest.name, {}) | {manifest.version: model}
        self._loaded = self._loaded | {manifest.name: versions}
        self._forget_failure(manifest.name, manifest.version)

    def fail(self, location: BundleLocation, reason: str) -> None:
        """Note why a bundle failed to load; if it was loaded before, it still serves."""
        shown = reason.replace(f"{location.directory}/", "")  # because clients see it
        failures = self._failed.get(location.name, {}) | {location.version: shown}
        self._failed = self._failed | {location.name: failures}

    def remove(self, name: str, version: int) -> None:
        """Remove a version, loaded or failed; requests that it handles are finished."""
        self._loaded = _without(self._loaded, name, version)
        self._forget_failure(name, version)

    def pin(self, name: str, version: int | None) -> None:
        """Choose the version that answers without one in the path; None is the newest.

        A version that is not loaded is a failure; the choice then stays as it was.
        """
        self._pin_failures.pop(name, None)
        if version is None:
            self._pinned.pop(name, None)
        elif version in self._loaded.get(name, {}):
            self._pinned[name] = version
        else:
            self.fail_pin(name, f"the pinned version {version} is not loaded")

    def fail_pin(self, name: str, reason: str) -> None:
        """Note why the pinned version of a model is unknown or cannot answer."""
        self._pin_failures[name] = reason

    def exists(self, name: str) -> bool:
        """Return True if a model has a version, loaded or failed."""
        return name in self._loaded or name in self._failed

    def check_exists(self, name: str) -> None:
        """Raise ModelNotFound unless a model exists."""
        if not self.exists(name):
            raise ModelNotFound(
                f"there is no model {name[:100]!r}; there are: {', '.join(self.names()) or 'none'}"
            )

    def get(self, name: str, version: str | None = None) -> LoadedModel:
        """Return a version of a model, or its pinned version, or its newest version.

        Raises ModelNotFound, VersionNotFound, or ModelNotReady if it failed to load.
        """
        self.check_exists(name)
        versions, failed = self._loaded.get(name, {}), self._failed.get(name, {})
        if version is None:
            if not versions:
                raise _build_not_ready(f"model {name!r}")
            pinned = versions.get(self._pinned.get(name, -1))
            return pinned or versions[max(versions)]
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
        """Return the version of each model that answers without one in the path."""
        return [self.get(name) for name in self.names()]

    def all(self) -> list[LoadedModel]:
        """Return all loaded models, in all versions."""
        return [model for versions in self._loaded.values() for model in versions.values()]

    def failures(self, model: str | None = None) -> dict[str, str]:
        """Return the reasons of failed bundles by `name/version`, and of pins by `name/default`.

        With `model`, only those of one model.
        """
        bundles = {
            f"{name}/{version}": reason
            for name, versions in self._failed.items()
            for version, reason in versions.items()
            if model in (None, name)
        }
        return bundles | {
            f"{name}/{PIN}": reason
            for name, reason in self._pin_failures.items()
            if model in (None, name)
        }

    def _forget_failure(self, name: str, version: int) -> None:
        self._failed = _without(self._failed, name, version)


def _without(
    versions: dict[str, dict[int, Kept]], name: str, version: int
) -> dict[str, dict[int, Kept]]:
    """Return a copy without one version, and without a model that has no other."""
    rest = {number: each for number, each in versions.get(name, {}).items() if number != version}
    others = {model: each for model, each in versions.items() if model != name}
    return others | {name: rest} if rest else others


def _build_not_ready(subject: str) -> ModelNotReady:
    return ModelNotReady(f"{subject} could not be loaded; the log and `check` have the reason")
