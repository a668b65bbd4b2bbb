"""Work on the items of a request in a thread, which ends with the request."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from service.errors import DeadlineExceeded
from service.operations.values import ItemResults

SLICE_SECONDS = 0.05  # after which other requests have their turn

Result = TypeVar("Result")


async def map_in_thread(
    pool: Executor | None, count: int, work: Callable[[int], Result], deadline: float
) -> list[Result]:
    """Call `work` for each index in a thread of the pool, or of the loop's own pool if it is None.

    Requests take turns, so that one with many images does not delay another with few. Raises
    InvalidItems with the errors of all items, and DeadlineExceeded at `deadline`, on the clock of
    `time.monotonic`, also while the pool is busy. After that, or if the request is cancelled, no
    further item begins.
    """
    ended = threading.Event()
    items: ItemResults[Result] = ItemResults()

    def run_slice() -> bool:
        """Work on some items, and return True after the last."""
        until = time.monotonic() + SLICE_SECONDS
        while items.done < count and not ended.is_set():
            items.add(work)
            if time.monotonic() > until:
                return False
        return True

    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            while not await loop.run_in_executor(pool, run_slice):
                pass
    except TimeoutError:
        raise DeadlineExceeded(
            f"the request reached its timeout after {items.done} of {count} images; send fewer "
            "images, or retry when the load is lower"
        ) from None
    finally:
        ended.set()
    return items.get()
