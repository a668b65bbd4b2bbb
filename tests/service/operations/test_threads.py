import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.errors import DeadlineExceeded, InvalidItems, InvalidLatents
from service.operations.threads import SLICE_SECONDS, map_in_thread


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def in_a_minute() -> float:
    return time.monotonic() + 60


def test_results_are_in_order_and_errors_name_their_items(pool: ThreadPoolExecutor) -> None:
    def fail(index: int) -> int:
        raise InvalidLatents(f"item {index}")

    assert asyncio.run(map_in_thread(pool, 3, lambda index: index**2, in_a_minute())) == [0, 1, 4]
    assert asyncio.run(map_in_thread(None, 1, lambda index: index, in_a_minute())) == [0]
    with pytest.raises(InvalidItems):
        asyncio.run(map_in_thread(pool, 2, fail, in_a_minute()))


def test_the_deadline_is_kept_while_the_pool_is_busy(pool: ThreadPoolExecutor) -> None:
    free = threading.Event()
    pool.submit(free.wait)
    called: list[int] = []
    try:
        with pytest.raises(DeadlineExceeded, match="after 0 of 2 images"):
            asyncio.run(map_in_thread(pool, 2, called.append, time.monotonic() + 0.01))
    finally:
        free.set()
    pool.shutdown()
    assert called == []


def test_requests_take_turns(pool: ThreadPoolExecutor) -> None:
    begun = threading.Event()
    order: list[str] = []

    def work(_: int) -> None:
        order.append("many")
        begun.set()
        time.sleep(SLICE_SECONDS)  # a slice is at most one item

    async def run() -> None:
        many = asyncio.create_task(map_in_thread(pool, 3, work, in_a_minute()))
        await asyncio.to_thread(begun.wait)
        await map_in_thread(pool, 1, lambda _: order.append("few"), in_a_minute())
        await many

    asyncio.run(run())
    assert order == ["many", "few", "many", "many"]


def test_no_item_begins_after_the_request_was_cancelled(pool: ThreadPoolExecutor) -> None:
    begun, free = threading.Event(), threading.Event()
    called: list[int] = []

    def work(index: int) -> None:
        called.append(index)
        begun.set()
        free.wait()

    async def cancel() -> None:
        task = asyncio.create_task(map_in_thread(pool, 100, work, in_a_minute()))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    free.set()
    pool.shutdown()
    assert called == [0]
