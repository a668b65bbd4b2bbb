"""Updates of a running service: new, changed and removed bundles are taken up one by one."""

import asyncio
import logging
import math
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal

from bundle.errors import BundleError, BundleUnavailable
from service.errors import DeviceError, ModelNotReady
from service.registry.loader import Loader
from service.registry.open_models import OpenModels
from service.registry.registry import ModelRegistry
from service.registry.repository import BundleLocation, Repository
from service.registry.served_model import ServedModel

logger = logging.getLogger(__name__)

READERS = 8  # of manifests at once, which may be in a store
# How changes are taken up, in the words of Triton: by nothing, by looking regularly, by requests.
ModelControl = Literal["none", "poll", "explicit"]


class Updates:
    """Keeps a registry equal to a repository.

    At the start, bundles are only listed. Later, a new version is opened, which verifies and tests
    it, beside the one that serves, and then replaces it. One that fails is tried again when its
    files have changed, or at the next look if they were unavailable.
    """

    def __init__(
        self,
        repository: Repository,
        loader: Loader,
        registry: ModelRegistry,
        open_models: OpenModels,
    ) -> None:
        self._repository, self._loader, self._registry = repository, loader, registry
        self._open_models = open_models
        self._seen: dict[tuple[str, int], Hashable] = {}  # signatures
        self._unloaded: set[str] = set()  # models, until they are loaded again
        self._lock = asyncio.Lock()
        self._looks: set[asyncio.Task[None]] = set()

    def load_all(self) -> None:
        """List every bundle, and open the preloaded models; a failing bundle is logged and skipped.

        Raises DeviceError if the device fails, BundleError if the repository is unreadable.
        """
        locations = self._repository.locations()
        with ThreadPoolExecutor(READERS) as readers:
            models = readers.map(self._try_index, locations)
        for location, model in zip(locations, models, strict=True):
            self._seen[location.name, location.version] = self._repository.sign(location)
            if isinstance(model, BundleError):
                self._fail(location, model)
            else:
                self._registry.put(model)
        self._open_models.preload()
        self._pin({location.name for location in locations})
        self._log_failures({})

    def _try_index(self, location: BundleLocation) -> ServedModel | BundleError:
        try:
            return self._loader.index(location)
        except BundleError as error:
            return error

    async def look(self, model: str | None = None) -> None:
        """Take up what has changed, of one model or of all that are not unloaded.

        Raises BundleError if the repository is unreadable; then nothing changes.
        """
        failures = self._registry.failures()
        async with self._lock:
            found = await asyncio.to_thread(self._repository.locations)
            if model is not None:
                self._unloaded.discard(model)
            locations = [each for each in found if model in (None, each.name)]
            for location in locations:
                if location.name not in self._unloaded:
                    await self._update(location, insists=model is not None)
            self._remove_all_but(found, model)
            if model is not None:
                await self._open_all(model)
            await asyncio.to_thread(self._pin, {each.name for each in locations})
        self._log_failures(failures)

    def request_look(self) -> None:
        """Look soon; only the event loop may call this."""
        task = asyncio.get_running_loop().create_task(self._try_look())
        self._looks.add(task)  # which keeps it alive
        task.add_done_callback(self._looks.discard)

    async def watch(self, seconds: float | None = None) -> None:
        """Look every so many seconds, by default those of the repository, until cancelled."""
        seconds = self._repository.poll_seconds if seconds is None else seconds
        while True:
            await asyncio.sleep(seconds)
            await self._try_look()

    async def _try_look(self) -> None:
        try:
            await self.look()
        except BundleError as error:
            logger.error("kept all models: %s", error)
        except Exception:  # whatever lies in the repository, the loaded models serve
            logger.exception("kept all models: the repository could not be read")

    @property
    def unloaded(self) -> list[str]:
        """The models that were unloaded, and not loaded again."""
        return sorted(self._unloaded)

    async def unload(self, model: str) -> None:
        """Remove all versions of a model until `look` names it. Raises ModelNotFound."""
        async with self._lock:
            self._registry.check_exists(model)
            self._unloaded.add(model)
            self._remove_all_but([], model)

    async def _update(self, location: BundleLocation, insists: bool) -> None:
        """Take up a bundle that has changed, or rests; with `insists`, also one that failed."""
        key = location.name, location.version
        signature = await asyncio.to_thread(self._repository.sign, location)
        model = self._registry.find(location)
        serves = model is not None and not self._registry.rests(model)
        if self._seen.get(key) == signature and (serves or not (model or insists)):
            return
        self._seen[key] = signature
        try:
            model = await asyncio.to_thread(self._loader.index, location)
            await self._open_models.take_up(model)
        except (BundleError, DeviceError) as error:
            self._fail(location, error)
        else:
            self._replace(location, model)
            logger.info("%s is ready on %s", location, model.provider)

    def _replace(self, location: BundleLocation, model: ServedModel | None) -> None:
        if former := self._registry.find(location):
            self._open_models.forget(former)
        if model:
            self._registry.put(model)
        else:
            self._registry.remove_version(location.name, location.version)

    def _fail(self, location: BundleLocation, error: BundleError | DeviceError) -> None:
        if isinstance(error, BundleUnavailable):
            self._seen[location.name, location.version] = None  # the next look tries again
        self._open_models.fail(location, error)

    async def _open_all(self, model: str) -> None:
        """Open the versions of a model that are closed; failures are in the registry."""
        for version in self._registry.versions(model):
            with suppress(ModelNotReady):
                await self._open_models.get(self._registry.get(model, str(version)), math.inf)

    def _remove_all_but(self, kept: list[BundleLocation], model: str | None) -> None:
        remaining = {(each.name, each.version) for each in kept}
        for key in [key for key in self._seen if key not in remaining and model in (None, key[0])]:
            del self._seen[key]
            self._replace(BundleLocation(Path(), *key), None)
            logger.info("%s version %d is removed", *key)

    def _pin(self, models: set[str]) -> None:
        for model in models:
            try:
                self._registry.pin(model, self._repository.read_pin(model))
            except BundleError as error:
                self._registry.fail_pin(model, str(error))

    def _log_failures(self, before: dict[str, str]) -> None:
        for key, reason in self._registry.failures().items():
            if before.get(key) != reason:
                logger.error("skipped %s: %s", key, reason)
