import asyncio
from typing import Any

from service.api.protocol import SMALL, Gathered


class Sent:
    """A transport that remembers what it was given."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def close(self) -> None:
        self.calls.append("closed")

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str) -> str:
        return f"the {name}"


def test_what_is_small_is_sent_together_and_what_is_large_by_itself_in_order() -> None:
    large = bytes(SMALL + 1)

    async def write() -> list[Any]:
        transport = Sent()
        gathered = Gathered(transport)  # type: ignore[arg-type]
        for data in (b"head ", b"body", large, b"next ", b"one"):
            gathered.write(data)
        gathered.flush()
        gathered.flush()
        return transport.calls

    assert asyncio.run(write()) == [b"head body", large, b"next one"]


def test_what_nobody_flushes_is_sent_in_the_next_turn_of_the_loop() -> None:
    async def write() -> list[Any]:
        transport = Sent()
        gathered = Gathered(transport)  # type: ignore[arg-type]
        gathered.write(b"the head of a stream")
        assert transport.calls == []
        await asyncio.sleep(0)
        return transport.calls

    assert asyncio.run(write()) == [b"the head of a stream"]


def test_nothing_is_lost_when_it_closes() -> None:
    async def write() -> list[Any]:
        transport = Sent()
        gathered = Gathered(transport)  # type: ignore[arg-type]
        gathered.write(b"a last word")
        gathered.close()
        assert gathered.get_extra_info("socket") == "the socket"
        return transport.calls

    assert asyncio.run(write()) == [b"a last word", "closed"]
