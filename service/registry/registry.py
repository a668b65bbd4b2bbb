"""Registry of the models that can serve, and of bundles that cannot."""

import time
from collections.abc import Callable
from typing import TypeVar

from bundle.manifest import PIN
from service.errors import ModelNotFound, ModelNotReady, VersionNotFound
from service.registry.repository import BundleLocation
from service.registry.served_model import ServedModel

REST_SECONDS = 10.0  # of a model that cannot be opened now; `Retry-After` names the same time

Kept = TypeVar("Kept")


class ModelRegistry:
    """Models by name and version, and the reasons of failed bundles."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._resting: dict[ServedModel, float] = {}  # until when
        self._models: dict[str, dict[int, ServedModel]] = {}
        self._failed: dict[str, dict[int, str]] = {}
        self._pinned: dict[str, int] = {}
        self._pin_failures: dict[str, str] = {}

    def put(self, model: ServedModel) -> None:
        """Add a model, in place of the same version if any."""
        manifest = model.manifest
        if former := self.find(model.location):
            self._resting.pop(former, None)
        # A copy, because other threads may iterate over the former.
        versions = self._models.get(manifest.name, {}) | {manifest.version: model}
        self._models = self._models | {manifest.name: versions}
        self._forget_failure(manifest.name, manifest.version)

    def succeed(self, model: ServedModel) -> None:
        """Forget why a model could not be opened, if it serves."""
        self._resting.pop(model, None)
        if self.find(model.location) is model:
            self._forget_failure(model.location.name, model.location.version)

    def fail(self, location: BundleLocation, reason: str) -> None:
        """Note why a bundle failed; a model that was there before still serves."""
        shown = reason.replace(f"{location.directory}/", "")  # because clients see it
        failures = self._failed.get(location.name, {}) | {location.version: shown}
        self._failed = self._failed | {location.name: failures}

    def rest(self, model: ServedModel) -> None:
        """Let a model not serve for `REST_SECONDS`, because it cannot be opened now."""
        if self.find(model.location) is model:
            self._resting[model] = self._clock() + REST_SECONDS

    def rests(self, model: ServedModel) -> bool:
        """Return True if a model cannot be opened now."""
        return self._resting.get(model, 0.0) > self._clock()

    def _end_rests(self) -> None:
        """Let models serve again, whose failures are then over until the next."""
        for model in [each for each in self._resting if not self.rests(each)]:
            del self._resting[model]
            self._forget_failure(model.location.name, model.location.version)

    def _serving(self, name: str) -> dict[int, ServedModel]:
        versions = self._models.get(name, {})
        if not self._resting:
            return versions
        self._end_rests()
        return {number: each for number, each in versions.items() if not self.rests(each)}

    def find(self, location: BundleLocation) -> ServedModel | None:
        """Return the model at a location, if it serves."""
        return self._models.get(location.name, {}).get(location.version)

    def remove(self, model: ServedModel) -> None:
        """Remove a model, unless another has its place; requests that it handles are finished."""
        if self.find(model.location) is model:
            self.remove_version(model.location.name, model.location.version)

    def remove_version(self, name: str, version: int) -> None:
        """Remove a version, serving or failed."""
        if model := self._models.get(name, {}).get(version):
            self._resting.pop(model, None)
        self._models = _without(self._models, name, version)
        self._forget_failure(name, version)

    def pin(self, name: str, version: int | None) -> None:
        """Choose the version that answers without one in the path; None is the newest.

        A version that does not serve is a failure; the choice then stays as it was.
        """
        self._pin_failures.pop(name, None)
        if version is None:
            self._pinned.pop(name, None)
        elif version in self._serving(name):
            self._pinned[name] = version
        else:
            self.fail_pin(name, f"the pinned version {version} does not serve")

    def fail_pin(self, name: str, reason: str) -> None:
        """Note why the pinned version of a model is unknown or cannot answer."""
        self._pin_failures[name] = reason

    def exists(self, name: str) -> bool:
        """Return True if a model has a version, serving or failed."""
        return name in self._models or name in self._failed

    def check_exists(self, name: str) -> None:
        """Raise ModelNotFound unless a model exists."""
        if not self.exists(name):
            raise ModelNotFound(
                f"there is no model {name[:100]!r}; there are: {', '.join(self.names()) or 'none'}"
            )

    def get(self, name: str, version: str | None = None) -> ServedModel:
        """Return a version of a model, or its pinned version, or its newest version.

        Raises ModelNotFound, VersionNotFound, or ModelNotReady if it cannot serve.
        """
        self.check_exists(name)
        versions, failed = self._serving(name), self._failed.get(name, {})
        if version is None:
            if not versions:
                raise _build_not_ready(f"model {name!r}")
            pinned = self._pinned.get(name)
            if pinned in versions:
                return versions[pinned]
            if pinned in self._models.get(name, {}) or pinned in failed:
                raise _build_not_ready(f"the pinned version {pinned} of {name!r}")
            return versions[max(versions)]
        number = next((known for known in versions | failed if str(known) == version), None)
        if number in versions:
            return versions[number]
        if number in failed:
            raise _build_not_ready(f"version {version} of {name!r}")
        ready = ", ".join(map(str, sorted(versions))) or "none"
        raise VersionNotFound(f"{name!r} has no version {version[:50]!r}; it has: {ready}")

    def find_default(self, name: str) -> ServedModel | None:
        """Return the version of a model that answers without one in the path, if one can."""
        try:
            return self.get(name)
        except (ModelNotFound, ModelNotReady):
            return None

    def names(self) -> list[str]:
        """Return the names of the models that can serve."""
        return sorted(name for name in self._models if self._serving(name))

    def versions(self, name: str) -> list[int]:
        """Return the versions of a model that can serve."""
        return sorted(self._serving(name))

    def newest(self) -> list[ServedModel]:
        """Return the version of each model that answers without one in the path."""
        defaults = [self.find_default(name) for name in self.names()]
        return [model for model in defaults if model]

    def all(self) -> list[ServedModel]:
        """Return all models that can serve, in all versions."""
        return [model for name in self._models for model in self._serving(name).values()]

    def failures(self, model: str | None = None) -> dict[str, str]:
        """Return the reasons of failed bundles by `name/version`, and of pins by `name/default`.

        With `model`, only those of one model.
        """
        self._end_rests()
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
