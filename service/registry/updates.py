"""Updates of a running service: new, changed and removed bundles are taken up one by one."""

import asyncio
import logging
from collections.abc import Callable, Hashable
from typing import Literal

from bundle.errors import BundleError, BundleUnavailable
from service.errors import DeviceError, DeviceLost
from service.registry.loader import Loader
from service.registry.registry import ModelRegistry
from service.registry.repository import BundleLocation, Repository

logger = logging.getLogger(__name__)

# How changes are taken up, in the words of Triton: by nothing, by looking regularly, by requests.
ModelControl = Literal["none", "poll", "explicit"]
Observer = Callable[[str, bool], None]  # of a load: model, and whether it succeeded


class Updates:
    """Keeps a registry equal to a repository.

    A new version is loaded, which verifies and tests it, beside the one that serves, and then
    replaces it. One that fails is tried again when its files have changed, or at the next look if
    they were unavailable.
    """

    def __init__(
        self,
        repository: Repository,
        loader: Loader,
        registry: ModelRegistry,
        observe: Observer = lambda *_: None,
        lose_device: Callable[[DeviceLost], None] = lambda _: None,
    ) -> None:
        self._repository, self._loader, self._registry = repository, loader, registry
        self._observe, self._lose_device = observe, lose_device
        self._seen: dict[tuple[str, int], Hashable] = {}  # signatures
        self._unloaded: set[str] = set()  # models, until they are loaded again
        self._lock = asyncio.Lock()
        self._looks: set[asyncio.Task[None]] = set()

    def load_all(self) -> None:
        """Load every bundle; a failing bundle is logged and skipped.

        Raises DeviceError if the device fails, BundleError if the repository is unreadable.
        """
        locations = self._repository.locations()
        for location in locations:
            self._seen[location.name, location.version] = self._repository.sign(location)
            self._load(location)
        self._pin({location.name for location in locations})
        self._log_failures({})

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
                    await self._update(location)
            self._remove_all_but(found, model)
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

    async def unload(self, model: str) -> None:
        """Remove all versions of a model until `look` names it. Raises ModelNotFound."""
        async with self._lock:
            self._registry.check_exists(model)
            self._unloaded.add(model)
            self._remove_all_but([], model)

    async def _update(self, location: BundleLocation) -> None:
        key = location.name, location.version
        signature = await asyncio.to_thread(self._repository.sign, location)
        if self._seen.get(key) == signature:
            return
        self._seen[key] = signature
        try:
            await asyncio.to_thread(self._load, location)
        except DeviceError as error:
            if isinstance(error, DeviceLost):
                self._lose_device(error)
            self._registry.fail(location, str(error))
            self._observe(location.name, False)

    def _load(self, location: BundleLocation) -> None:
        try:
            model = self._loader.load(location)
        except BundleError as error:
            if isinstance(error, BundleUnavailable):
                self._seen[location.name, location.version] = None  # the next look tries again
            self._registry.fail(location, str(error))
            self._observe(location.name, False)
        else:
            self._registry.put(model)
            logger.info("%s is ready on %s", location, model.provider)
            self._observe(location.name, True)

    def _remove_all_but(self, kept: list[BundleLocation], model: str | None) -> None:
        remaining = {(each.name, each.version) for each in kept}
        for key in [key for key in self._seen if key not in remaining and model in (None, key[0])]:
            del self._seen[key]
            self._registry.remove(*key)
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
