"""Models whose graphs are open: opened when they are first used, and closed to make room."""

import asyncio
import gc
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from bundle.errors import BundleError, BundleUnavailable
from service.errors import DeadlineExceeded, DeviceError, DeviceLost, ModelNotReady
from service.registry.loaded_model import LoadedModel
from service.registry.loader import Loader
from service.registry.registry import ModelRegistry
from service.registry.repository import BundleLocation
from service.registry.served_model import ServedModel
from service.registry.shared_sessions import SharedSessions

logger = logging.getLogger(__name__)

ALL_MODELS = "*"
FETCHERS = 2  # bundles at once
RELEASE_SECONDS = 1.0  # of waiting for graphs that no request should hold any more
Result = TypeVar("Result")
Observer = Callable[[str, bool], None]  # of an opening: model, and whether it succeeded


@dataclass
class Opening:
    """A model that is being opened, and the number of requests that wait for it."""

    task: asyncio.Task[LoadedModel]
    waiting: int = 0


class OpenModels:
    """Opens models, one at a time, and keeps those that were used last.

    The graphs of open models take at most `max_bytes`, or one model alone takes more. Requests keep
    the graphs that they use, and these count until they are let go. Models of the `preloaded` names
    stay open. Methods that are not asynchronous must be called on the event loop, or before it
    runs.
    """

    def __init__(
        self,
        loader: Loader,
        registry: ModelRegistry,
        sessions: SharedSessions,
        max_bytes: int,
        preloaded: Collection[str] = (),
        observe: Observer = lambda *_: None,
        lose_device: Callable[[DeviceLost], None] = lambda _: None,
    ) -> None:
        self._loader, self._registry, self._sessions = loader, registry, sessions
        self._max_bytes, self._preloaded = max_bytes, preloaded
        self._observe, self._lose_device = observe, lose_device
        self._recent: OrderedDict[ServedModel, None] = OrderedDict()  # open ones, by last use
        self._openings: dict[ServedModel, Opening] = {}
        self._turn = asyncio.Lock()
        self._closed = asyncio.Event()  # a session
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="open")
        self._fetching = ThreadPoolExecutor(FETCHERS, thread_name_prefix="fetch")

    def list(self) -> list[ServedModel]:
        """Return the open models, the least recently used first."""
        return list(self._recent)

    def count_bytes(self) -> int:
        """Return the bytes that all open graphs take."""
        return self._sessions.count_bytes()

    def is_preloaded(self, model: ServedModel) -> bool:
        """Return True if a model is opened at the start, and stays open.

        By a name, this is the version that answers without one.
        """
        if ALL_MODELS in self._preloaded:
            return True
        name = model.manifest.name
        return name in self._preloaded and self._registry.find_default(name) is model

    def preload(self) -> None:
        """Open the preloaded models before the event loop runs, or one model to try the device.

        Raises DeviceError if the device fails, ModelNotFound if there is no such model.
        """
        for name in {*self._preloaded} - {ALL_MODELS}:
            self._registry.check_exists(name)
            while (model := self._registry.find_default(name)) and not self._open_now(model):
                pass  # it failed, and another version is the default
        models = sorted(self._registry.all(), key=self._loader.estimate)
        if ALL_MODELS in self._preloaded:
            models = [model for model in models if not self._open_now(model)]
        if not self._recent:
            next((model for model in models if self._open_now(model)), None)
        if self.count_bytes() > self._max_bytes:
            logger.warning(
                "the preloaded models take %d bytes, and AE_MODEL_MEMORY is %d: others are closed "
                "after each use",
                self.count_bytes(),
                self._max_bytes,
            )

    def _open_now(self, model: ServedModel) -> bool:
        """Open a model, and return True if it can serve. Raises DeviceError."""
        if self._registry.find(model.location) is not model or self._registry.rests(model):
            return False  # it has failed
        try:
            self._loader.fetch(model)
            loaded = self._loader.open(model)
        except BundleError as error:
            self._fail_to_open(model, error)
            return False
        self._observe(model.manifest.name, True)
        self._add(model, loaded)
        return True

    def fail(self, location: BundleLocation, error: BundleError | DeviceError) -> None:
        """Note why a bundle cannot be listed or opened."""
        if isinstance(error, DeviceLost):
            self._lose_device(error)
        self._registry.fail(location, str(error))
        self._observe(location.name, False)

    async def get(self, model: ServedModel, deadline: float) -> LoadedModel:
        """Return the graphs of a model, which are opened if they are closed.

        Raises ModelNotReady if they cannot be opened, and DeadlineExceeded if they are not open at
        `deadline`, on the clock of `time.monotonic`.
        """
        if model.loaded is not None:
            if model in self._recent:
                self._recent.move_to_end(model)
            return model.loaded
        opening = self._openings.get(model)
        if opening is None:
            opening = self._openings[model] = Opening(asyncio.create_task(self._open(model)))
            opening.task.add_done_callback(lambda done: self._end(model, done))
        opening.waiting += 1
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await asyncio.shield(opening.task)
        except TimeoutError:
            raise DeadlineExceeded(
                f"{model.location} was not open in time; retry when the load is lower"
            ) from None
        finally:
            opening.waiting -= 1
            del opening  # an error of its task would hold this frame, which would hold the error

    async def take_up(self, model: ServedModel) -> None:
        """Open a model to test it before it serves; it stays open if there is room.

        Raises BundleError if it is damaged, DeviceError if the device fails.
        """
        await self._fetch(model)
        async with self._turn:
            loaded = await self._load(model)
            if self.is_preloaded(model) or self.count_bytes() <= self._max_bytes:
                self._add(model, loaded)
            else:
                model.provider = loaded.provider

    def forget(self, model: ServedModel) -> None:
        """Close a model that is removed or replaced, after the requests that use it."""
        self._recent.pop(model, None)

    def close(self) -> None:
        """Open no more models."""
        for thread in (self._thread, self._fetching):
            thread.shutdown(wait=False, cancel_futures=True)

    async def _open(self, model: ServedModel) -> LoadedModel:
        try:
            await self._fetch(model)
            async with self._turn:
                if not self._openings[model].waiting:
                    raise ModelNotReady(f"no request waits for {model.location} any more")
                loaded = await self._load_with_room(model)
        except (BundleError, DeviceError) as error:
            if self._registry.find(model.location) is model:
                self._fail_to_open(model, error)
                logger.error("%s cannot be opened: %s", model.location, error)
            raise ModelNotReady(
                f"{model.location} could not be opened; the log and `check` have the reason"
            ) from None
        if self._registry.find(model.location) is model:  # or it was replaced in the meantime
            self._add(model, loaded)
            self._close_surplus(model)
        return loaded

    async def _load_with_room(self, model: ServedModel) -> LoadedModel:
        await self._make_room(model)
        try:
            return await self._load(model)
        except DeviceLost:
            raise
        except DeviceError:  # such as too little memory of a GPU, of which less is known
            if not self._close_oldest(model):
                raise
            return await self._load(model)

    async def _fetch(self, model: ServedModel) -> None:
        await _run_in(self._fetching, self._loader.fetch, model)

    async def _load(self, model: ServedModel) -> LoadedModel:
        loaded = await _run_in(self._thread, self._loader.open, model)
        self._observe(model.manifest.name, True)
        return loaded

    def _end(self, model: ServedModel, opening: asyncio.Task[LoadedModel]) -> None:
        del self._openings[model]
        if not opening.cancelled():
            opening.exception()  # which asyncio would log if no request waited any more

    def _add(self, model: ServedModel, loaded: LoadedModel) -> None:
        model.loaded, model.provider = loaded, loaded.provider
        self._recent[model] = None
        self._registry.succeed(model)
        logger.info("%s is open on %s", model.location, loaded.provider)

    def _fail_to_open(self, model: ServedModel, error: BundleError | DeviceError) -> None:
        """Note why a model cannot be opened. A damaged one never serves, others are tried later."""
        if isinstance(error, BundleUnavailable | DeviceError):
            self._registry.rest(model)
        else:
            self._registry.remove(model)
        self.fail(model.location, error)

    async def _make_room(self, model: ServedModel) -> None:
        """Close models until there is room for another, and wait until requests let them go."""
        loop = asyncio.get_running_loop()
        self._sessions.on_close = partial(_wake, loop, self._closed)
        needed = self._loader.estimate(model)
        self._close_surplus(model, needed)
        while self.count_bytes() + needed > self._max_bytes:
            self._closed.clear()
            if self.count_bytes() <= self._count_open_bytes():
                return
            try:
                async with asyncio.timeout(RELEASE_SECONDS):
                    await self._closed.wait()
            except TimeoutError:
                gc.collect()  # because errors can hold the graphs of requests that have ended

    def _close_surplus(self, kept: ServedModel, needed: int = 0) -> None:
        """Close models while those that are open leave too little room."""
        while self._count_open_bytes() + needed > self._max_bytes and self._close_oldest(kept):
            pass

    def _close_oldest(self, kept: ServedModel) -> bool:
        """Close the model that was not used for longest; return False if none may be closed."""
        for model in self._recent:
            if model is not kept and not self.is_preloaded(model):
                del self._recent[model]
                model.loaded = None
                return True
        return False

    def _count_open_bytes(self) -> int:
        files = [model.manifest.files for model in self._recent]
        return self._sessions.count_bytes({digest for each in files for digest in each.values()})


async def _run_in(
    pool: ThreadPoolExecutor, work: Callable[[ServedModel], Result], model: ServedModel
) -> Result:
    """Run a work in a thread of a pool. Raises a copy of its BundleError or DeviceError.

    A future would hold its result or its error, whose frames hold graphs, until a collection.
    """
    results: list[Result] = []
    errors: list[BundleError | DeviceError] = []

    def run() -> None:
        try:
            results.append(work(model))
        except (BundleError, DeviceError) as error:
            errors.append(type(error)(str(error)))

    await asyncio.get_running_loop().run_in_executor(pool, run)
    if errors:
        raise errors.pop()
    return results.pop()


def _wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the loop has ended, and no request waits
        loop.call_soon_threadsafe(event.set)
