import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from service.workers import ALONE, Peers, Worker, WorkerSilent

Run = Callable[[list[Peers]], Coroutine[Any, Any, None]]


def run(directory: Path, use: Run, count: int = 3) -> None:
    """Use all workers but the last, which has not started."""

    async def main() -> None:
        peers = [Peers(Worker(number, count, directory)) for number in range(1, count + 1)]
        for each in peers[:-1]:
            await each.start()
        await use(peers)
        for each in peers:
            each.stop()

    asyncio.run(main())


def test_every_worker_that_has_started_answers_within_the_time(tmp_path: Path) -> None:
    async def use(peers: list[Peers]) -> None:
        for each in peers:

            @each.answers("add")
            async def add(argument: int, number: int = each.worker.number) -> int:
                return argument + number

        assert await peers[0].ask("add", 10) == {1: 11, 2: 12}
        assert await peers[1].ask("add", 20) == {1: 21, 2: 22}

    run(tmp_path, use)


def test_a_worker_that_is_too_slow_or_fails_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(peers: list[Peers]) -> None:
        asked, released = asyncio.Event(), asyncio.Event()

        @peers[0].answers("slow")
        async def answer(_: object) -> str:
            return "own"

        @peers[1].answers("slow")
        async def never(_: object) -> None:
            asked.set()
            await released.wait()

        assert await peers[0].ask("slow", timeout=0.01) == {1: "own"}
        await asked.wait()
        released.set()

        @peers[1].answers("slow")
        async def fail(_: object) -> None:
            raise ValueError("wrong")

        assert await peers[0].ask("slow", timeout=60) == {1: "own"}

    run(tmp_path, use)
    assert "wrong" in caplog.text


def test_a_worker_that_runs_must_answer_but_not_one_that_has_ended(tmp_path: Path) -> None:
    async def use(peers: list[Peers]) -> None:
        @peers[0].answers("load")
        async def answer(_: object) -> str:
            return "own"

        @peers[1].answers("load")
        async def never(_: object) -> None:
            await asyncio.Event().wait()

        with pytest.raises(WorkerSilent, match="worker 2 did not respond; the log says why"):
            await peers[0].ask_running("load", None, 0.01)
        peers[1].stop()
        assert await peers[0].ask_running("load", None, 60) == {1: "own"}

    run(tmp_path, use)


def test_a_single_worker_asks_only_itself_and_opens_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    async def use() -> None:
        peers = Peers(ALONE)
        await peers.start()

        @peers.answers("name")
        async def answer(_: object) -> str:
            return "own"

        @peers.answers("fault")
        async def fail(_: object) -> None:
            raise ValueError("wrong")

        assert await peers.ask("name") == {1: "own"}
        with pytest.raises(ValueError, match="wrong"):
            await peers.ask("fault")
        peers.stop()

    asyncio.run(use())
    assert list(tmp_path.iterdir()) == []
