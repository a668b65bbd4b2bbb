"""Models whose graphs are open: opened when they are first used, and closed to make room."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from bundle.errors import BundleError, BundleUnavailable, InvalidParameter
from service.errors import DeadlineExceeded, DeviceError, DeviceLost, ModelNotReady
from service.registry.loaded_model import LoadedModel
from service.registry.loader import Loader
from service.registry.registry import ModelRegistry
from service.registry.repository import BundleLocation
from service.registry.served_model import ServedModel
from service.registry.shared_sessions import SharedSessions

logger = logging.getLogger(__name__)

ALL = "*"
Observer = Callable[[str, bool], None]  # of an opening: model, and whether it succeeded


class OpenModels:
    """Opens models, one at a time, and keeps those that were used last.

    The graphs of open models take at most `max_bytes`, or one model alone takes more. A model that
    a request uses is closed only after it. Models of the `preloaded` names stay open. Methods that
    are not asynchronous must be called on the event loop, or before it runs.
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
        self._recent: OrderedDict[ServedModel, None] = (
            OrderedDict()
        )  # the open ones, by their last use
        self._openings: dict[ServedModel, asyncio.Task[LoadedModel]] = {}
        self._turn = asyncio.Lock()
        self._closed = asyncio.Event()  # a session
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="open")

    def list(self) -> list[ServedModel]:
        """Return the open models, the least recently used first."""
        return list(self._recent)

    def count_bytes(self) -> int:
        """Return the bytes that all open graphs take."""
        return self._sessions.count_bytes()

    def is_preloaded(self, model: ServedModel) -> bool:
        """Return True if a model is opened at the start, and stays open."""
        return ALL in self._preloaded or model.manifest.name in self._preloaded

    def preload(self) -> None:
        """Open the preloaded models before the event loop runs, or one model to try the device.

        Raises DeviceError if the device fails, InvalidParameter if there is no such model.
        """
        for name in {*self._preloaded} - {ALL}:
            if not self._registry.exists(name):
                raise InvalidParameter(
                    f"AE_PRELOAD names {name!r}, which is no model; there are: "
                    f"{', '.join(self._registry.names()) or 'none'}"
                )
        models = self._registry.all()
        opened = [self._open_now(model) for model in models if self.is_preloaded(model)]
        if not any(opened):
            smallest = sorted(models, key=self._loader.estimate)
            any(self._open_now(model) for model in smallest if not self.is_preloaded(model))
        if self.count_bytes() > self._max_bytes:
            logger.warning(
                "the preloaded models take %d bytes, and AE_MODEL_MEMORY is %d: others are closed "
                "after each use",
                self.count_bytes(),
                self._max_bytes,
            )

    def _open_now(self, model: ServedModel) -> bool:
        """Open a model, and return True if it can serve. Raises DeviceError."""
        try:
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
            opening = self._openings[model] = asyncio.create_task(self._open(model))
            opening.add_done_callback(lambda done: self._end(model, done))
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await asyncio.shield(opening)
        except TimeoutError:
            raise DeadlineExceeded(
                f"{model.location} was not open in time; retry, when it will be"
            ) from None

    async def take_up(self, model: ServedModel) -> None:
        """Open a model to test it before it serves; it stays open if there is room.

        Raises BundleError if it is damaged, DeviceError if the device fails.
        """
        async with self._turn:
            loaded = await self._run(model)
            if self.is_preloaded(model) or self.count_bytes() <= self._max_bytes:
                self._add(model, loaded)
            else:
                model.provider = loaded.provider

    def forget(self, model: ServedModel) -> None:
        """Close a model that is removed or replaced, after the requests that use it."""
        self._recent.pop(model, None)

    def close(self) -> None:
        """Open no more models."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _open(self, model: ServedModel) -> LoadedModel:
        async with self._turn:
            await self._make_room(model)
            try:
                loaded = await self._run(model)
            except (BundleError, DeviceError) as error:
                self._fail_to_open(model, error)
                logger.error("%s cannot be opened: %s", model.location, error)
                raise ModelNotReady(
                    f"{model.location} could not be opened; the log and `check` have the reason"
                ) from error
            self._add(model, loaded)
            while self.count_bytes() > self._max_bytes and self._close_oldest(model):
                pass
            return loaded

    async def _run(self, model: ServedModel) -> LoadedModel:
        opened: list[LoadedModel] = []  # the result of a future would live until a collection
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, lambda: opened.append(self._loader.open(model)))
        self._observe(model.manifest.name, True)
        return opened.pop()

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
        while self.count_bytes() + self._loader.estimate(model) > self._max_bytes:
            self._closed.clear()
            if self._close_oldest(model):
                continue
            if self.count_bytes() <= self._count_open_bytes():
                return
            await self._closed.wait()

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


def _wake(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the loop has ended, and no request waits
        loop.call_soon_threadsafe(event.set)
