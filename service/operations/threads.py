"""Work on the items of a request in a thread, which ends with the request."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from service.errors import DeadlineExceeded
from service.operations.values import map_items

Result = TypeVar("Result")


async def map_in_thread(
    pool: Executor | None, count: int, work: Callable[[int], Result], deadline: float
) -> list[Result]:
    """Call `work` for each index in a thread of the pool, or of the loop's own pool if it is None.

    Returns or raises as `map_items` does. Raises DeadlineExceeded at `deadline`, on the clock of
    `time.monotonic`, also while the pool is busy. After that, or if the request is cancelled, no
    further item begins.
    """
    ended = threading.Event()
    done = 0

    def work_unless_ended(index: int) -> Result:
        nonlocal done
        if ended.is_set():
            raise asyncio.CancelledError
        done = index
        return work(index)

    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            return await loop.run_in_executor(pool, map_items, count, work_unless_ended)
    except TimeoutError:
        raise DeadlineExceeded(
            f"the request reached its timeout after {done} of {count} images; send fewer images, "
            "or retry when the load is lower"
        ) from None
    finally:
        ended.set()
