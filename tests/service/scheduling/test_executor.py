import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bundle.tensors import Tensors
from service.errors import DeadlineExceeded, DeviceLost, ShuttingDown
from service.scheduling.batcher import SharedRun, Work
from service.scheduling.executor import (
    MAX_BATCH_SECONDS,
    OVERTAKE_SECONDS,
    Completion,
    DeviceExecutor,
)

LATER = 60.0  # seconds, after which a test has failed


@pytest.fixture
def executor() -> Iterator[DeviceExecutor]:
    executor = DeviceExecutor(max_batch_size=4)
    yield executor
    executor.close()


class Gate:
    """A run that signals that it has begun, and ends when its gate opens."""

    def __init__(self) -> None:
        self.began, self.open = threading.Event(), threading.Event()

    def __call__(self, tensors: Tensors) -> Tensors:
        self.began.set()
        assert self.open.wait(LATER)
        return tensors


def work(
    run: Callable[[Tensors], Tensors],
    *rows: float,
    kind: str = "a",
    owner: str = "model",
    alone: bool = False,
    uses: str | None = None,
) -> Work:
    images: Tensors = {"images": np.array(rows or [0.0])}
    return Work(owner, kind, run, images, alone, uses=frozenset([uses] if uses else []))


def deadline() -> float:
    return time.monotonic() + LATER


async def settle() -> None:
    """Let the tasks that were just made come as far as they can."""
    await asyncio.sleep(0)


def test_work_that_came_while_the_device_was_busy_runs_as_one_batch(
    executor: DeviceExecutor,
) -> None:
    gate, sizes = Gate(), []

    def double(tensors: Tensors) -> Tensors:
        sizes.append(len(tensors["images"]))
        return {"latents": 2 * tensors["images"]}

    async def crowd() -> list[list[float]]:
        first = asyncio.create_task(executor.run(work(gate), deadline()))
        await asyncio.to_thread(gate.began.wait, LATER)
        others = [
            asyncio.create_task(executor.run(work(double, n, kind="b"), deadline()))
            for n in range(6)
        ]
        await settle()
        gate.open.set()
        await first
        return [(await other).results["latents"].tolist() for other in others]

    assert asyncio.run(crowd()) == [[2.0 * n] for n in range(6)]
    assert sizes == [4, 2]


def test_work_of_one_turn_of_the_loop_runs_as_one_batch_without_a_wait(
    executor: DeviceExecutor,
) -> None:
    sizes: list[int] = []

    def count(tensors: Tensors) -> Tensors:
        sizes.append(len(tensors["images"]))
        return tensors

    async def crowd() -> None:
        await asyncio.gather(*(executor.run(work(count, n), deadline()) for n in range(3)))

    asyncio.run(crowd())
    assert sizes == [3]


def test_work_that_the_next_turn_of_the_loop_brings_joins_a_short_batch() -> None:
    executor = DeviceExecutor(4, inline_seconds=LATER)
    sizes: list[int] = []

    def count(tensors: Tensors) -> Tensors:
        sizes.append(len(tensors["images"]))
        return tensors

    async def run_after(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await executor.run(work(count), deadline())

    async def crowd() -> None:
        await executor.run(work(count), deadline())  # so that its time is known
        await asyncio.gather(*(run_after(turn) for turn in range(6)))

    asyncio.run(crowd())
    executor.close()
    assert sizes == [1, 4, 2]


def test_a_delay_waits_until_the_batch_is_full() -> None:
    executor = DeviceExecutor(2, max_queue_delay=LATER)
    sizes: list[int] = []

    def count(tensors: Tensors) -> Tensors:
        sizes.append(len(tensors["images"]))
        return tensors

    async def one_after_the_other() -> None:
        first = asyncio.create_task(executor.run(work(count), deadline()))
        await settle()
        await settle()
        assert sizes == []
        await asyncio.gather(first, executor.run(work(count), deadline()))

    asyncio.run(one_after_the_other())
    executor.close()
    assert sizes == [2]


@pytest.mark.parametrize(("short", "second_on_the_loop"), [(LATER, True), (0.0, False)])
def test_work_that_is_known_to_be_short_runs_on_the_event_loop(
    short: float, second_on_the_loop: bool
) -> None:
    executor = DeviceExecutor(4, inline_seconds=short)
    threads = []

    def note(tensors: Tensors) -> Tensors:
        threads.append(threading.current_thread())
        return tensors

    async def twice() -> None:
        for _ in range(2):
            await executor.run(work(note), deadline())

    asyncio.run(twice())
    executor.close()
    assert [thread is threading.main_thread() for thread in threads] == [False, second_on_the_loop]


def test_a_batch_that_takes_long_is_kept_short() -> None:
    executor = DeviceExecutor(50)
    sizes: list[int] = []

    def slow(tensors: Tensors) -> Tensors:
        sizes.append(len(tensors["images"]))
        time.sleep(MAX_BATCH_SECONDS)
        return tensors

    async def one_then_many() -> None:
        await executor.run(work(slow), deadline())
        await executor.run(work(slow, 1.0, 2.0), deadline())

    asyncio.run(one_then_many())
    executor.close()
    assert sizes == [1, 1, 1]


def test_work_that_is_too_late_is_dropped_at_its_deadline_and_never_runs(
    executor: DeviceExecutor,
) -> None:
    gate, ran = Gate(), []

    def note(tensors: Tensors) -> Tensors:
        ran.append("ran")
        return tensors

    async def wait_behind_it() -> None:
        first = asyncio.create_task(executor.run(work(gate), deadline()))
        await asyncio.to_thread(gate.began.wait, LATER)
        with pytest.raises(DeadlineExceeded, match="did not run within"):
            await executor.run(work(note), time.monotonic())
        gate.open.set()
        await first

    asyncio.run(wait_behind_it())
    assert ran == []


def test_work_that_is_cancelled_while_it_waits_never_runs(executor: DeviceExecutor) -> None:
    gate, ran = Gate(), []

    def note(tensors: Tensors) -> Tensors:
        ran.append(tensors["images"].tolist())
        return tensors

    async def cancel_one() -> None:
        first = asyncio.create_task(executor.run(work(gate), deadline()))
        await asyncio.to_thread(gate.began.wait, LATER)
        left = asyncio.create_task(executor.run(work(note, 1.0), deadline()))
        stays = asyncio.create_task(executor.run(work(note, 2.0), deadline()))
        await settle()
        left.cancel()
        await settle()
        gate.open.set()
        await asyncio.gather(first, stays)

    asyncio.run(cancel_one())
    assert ran == [[2.0]]


def test_a_work_that_fails_ends_neither_the_executor_nor_those_in_its_batch(
    executor: DeviceExecutor,
) -> None:
    def inverse(tensors: Tensors) -> Tensors:
        if not tensors["images"].all():
            raise ZeroDivisionError
        return {"latents": 1 / tensors["images"]}

    async def both() -> tuple[Completion | BaseException, Completion | BaseException]:
        together = (
            executor.run(work(inverse, 0.0), deadline()),
            executor.run(work(inverse, 2.0), deadline()),
        )
        return await asyncio.gather(*together, return_exceptions=True)

    failed, ran = asyncio.run(both())
    assert isinstance(failed, ZeroDivisionError)
    assert isinstance(ran, Completion)
    assert ran.results["latents"].tolist() == [0.5]


def test_after_the_device_is_lost_no_work_is_taken(executor: DeviceExecutor) -> None:
    def lose(_: Tensors) -> Tensors:
        raise DeviceLost("the device failed")

    async def lose_it() -> None:
        with pytest.raises(DeviceLost):
            await executor.run(work(lose), deadline())
        with pytest.raises(DeviceLost, match="the device failed"):
            await executor.run(work(Gate()), deadline())

    assert executor.lost is None
    asyncio.run(lose_it())
    assert executor.lost


def test_waiting_work_fails_with_shutting_down(executor: DeviceExecutor) -> None:
    gate = Gate()

    async def close_while_one_waits() -> None:
        first = asyncio.create_task(executor.run(work(gate), deadline()))
        await asyncio.to_thread(gate.began.wait, LATER)
        second = asyncio.create_task(executor.run(work(gate), deadline()))
        await settle()
        closing = asyncio.create_task(asyncio.to_thread(executor.close))
        with pytest.raises(ShuttingDown, match="before the request ran"):
            await second
        gate.open.set()
        await closing
        await first
        with pytest.raises(ShuttingDown):
            await executor.run(work(gate), deadline())

    asyncio.run(close_while_one_waits())


def test_it_closes_after_a_loop_that_ended_while_work_waited(executor: DeviceExecutor) -> None:
    gate = Gate()

    async def leave_work() -> None:
        tasks = [asyncio.create_task(executor.run(work(gate), deadline()))]
        await asyncio.to_thread(gate.began.wait, LATER)
        tasks.append(asyncio.create_task(executor.run(work(gate), deadline())))
        await settle()

    asyncio.run(leave_work())
    assert executor.queued() == 1
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(executor.close)
        while executor.queued():
            pass
        gate.open.set()
        closing.result()


def test_the_observer_sees_every_batch() -> None:
    seen: list[tuple[object, int]] = []
    executor = DeviceExecutor(4, observe=lambda owner, images, _: seen.append((owner, images)))
    asyncio.run(executor.run(work(lambda tensors: tensors, *range(6)), deadline()))
    executor.close()
    assert seen == [("model", 4), ("model", 2)]


def test_short_work_of_another_model_does_not_wait_for_a_long_batch() -> None:
    executor, gate = DeviceExecutor(4, inline_seconds=LATER), Gate()

    async def run() -> list[float]:
        async def small() -> Completion:
            return await executor.run(work(lambda tensors: tensors, owner="small"), deadline())

        await small()  # its time is now known
        large = asyncio.create_task(executor.run(work(gate, owner="large"), deadline()))
        await asyncio.to_thread(gate.began.wait, LATER)
        waited = [(await small()).waited for _ in range(2)]
        assert not large.done()
        gate.open.set()
        await large
        return waited

    _, second = asyncio.run(run())
    executor.close()
    assert second > OVERTAKE_SECONDS / 2  # the long batch keeps most of the cores


@pytest.mark.parametrize("owner", ["model", "one that uses the same"])
def test_only_one_thread_runs_a_model_and_what_it_shares(owner: str) -> None:
    executor, gate = DeviceExecutor(4, inline_seconds=LATER), Gate()
    order: list[str] = []

    def note(tensors: Tensors) -> Tensors:
        order.append("short")
        return tensors

    async def run() -> None:
        await executor.run(work(note, owner=owner, uses="encoder"), deadline())
        long = work(gate, kind="long", uses="encoder")
        running = asyncio.create_task(executor.run(long, deadline()))
        await asyncio.to_thread(gate.began.wait, LATER)
        short = work(note, owner=owner, uses="encoder")
        waiting = asyncio.create_task(executor.run(short, deadline()))
        await asyncio.sleep(2 * OVERTAKE_SECONDS)
        order.append("long ends")
        gate.open.set()
        await asyncio.gather(running, waiting)

    asyncio.run(run())
    executor.close()
    assert order == ["short", "long ends", "short"]


def test_work_that_runs_alone_overtakes_only_if_all_of_it_is_short() -> None:
    executor, gate = DeviceExecutor(64, inline_seconds=0.001), Gate()

    def slow(tensors: Tensors) -> Tensors:
        time.sleep(0.0002 * len(tensors["images"]))
        return tensors

    async def run() -> None:
        await executor.run(work(slow, owner="small", alone=True), deadline())
        large = asyncio.create_task(executor.run(work(gate, owner="large"), deadline()))
        await asyncio.to_thread(gate.began.wait, LATER)
        many = work(slow, *range(60), owner="small", alone=True)
        long = asyncio.create_task(executor.run(many, deadline()))
        await asyncio.sleep(2 * OVERTAKE_SECONDS)
        assert not long.done()
        gate.open.set()
        await asyncio.gather(large, long)

    asyncio.run(run())
    executor.close()


def test_a_batch_that_models_share_is_observed_for_each(executor: DeviceExecutor) -> None:
    seen: list[tuple[str, int]] = []
    executor._observe = lambda owner, images, _: seen.append((owner, images))
    shared = SharedRun("encoder", lambda _: {}, lambda tensors: tensors)

    def of(owner: str, *rows: float) -> Work:
        return Work(owner, "a", lambda tensors: tensors, {"images": np.array(rows)}, shared=shared)

    async def both() -> None:
        await asyncio.gather(
            executor.run(of("one", 1.0, 2.0), deadline()), executor.run(of("two", 3.0), deadline())
        )

    asyncio.run(both())
    assert seen == [("one", 2), ("two", 1)]
