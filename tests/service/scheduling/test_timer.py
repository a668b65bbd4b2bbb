import asyncio
import time

from service.scheduling.timer import Timer


def test_it_rings_once_for_all_that_was_set_and_not_before_the_earliest() -> None:
    rang: list[float] = []

    async def ring_at(*times: float) -> None:
        done = asyncio.Event()

        def ring() -> None:
            rang.append(time.monotonic())
            done.set()

        timer = Timer(ring)
        for at in times:
            timer.set(at)
        await asyncio.wait_for(done.wait(), 60)

    now = time.monotonic()
    asyncio.run(ring_at(now + 100, now + 0.05, now + 50))
    assert len(rang) == 1
    assert now + 0.04 < rang[0]  # a loop's clock may be coarse


def test_the_callback_may_set_it_again() -> None:
    async def thrice() -> int:
        rang, done = 0, asyncio.Event()

        def ring() -> None:
            nonlocal rang
            rang += 1
            if rang < 3:
                timer.set(0.0)
            else:
                done.set()

        timer = Timer(ring)
        timer.set(0.0)
        await asyncio.wait_for(done.wait(), 60)
        return rang

    assert asyncio.run(thrice()) == 3


def test_the_timers_of_a_loop_that_has_ended_are_not_waited_for() -> None:
    rang: list[asyncio.Event] = []
    timer = Timer(lambda: rang[-1].set())

    async def set_only() -> None:
        timer.set(time.monotonic() + 1000)

    async def set_and_wait() -> None:
        rang.append(asyncio.Event())
        timer.set(time.monotonic() + 2000)
        timer.set(0.0)
        await asyncio.wait_for(rang[-1].wait(), 60)

    asyncio.run(set_only())
    asyncio.run(set_and_wait())
