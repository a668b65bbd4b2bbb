import asyncio
from typing import Any

from service.server.protocol import MAX_BUFFERED_BYTES, BufferedTransport


class Sent:
    """A transport that remembers what it was given."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def close(self) -> None:
        self.calls.append("closed")

    def is_closing(self) -> bool:
        return self.calls[-1:] == ["closed"]

    def get_extra_info(self, name: str) -> str:
        return f"the {name}"


def gathering() -> tuple[BufferedTransport, Sent]:
    transport = Sent()
    return BufferedTransport(transport), transport  # type: ignore[arg-type]


def test_small_writes_are_sent_together_and_large_writes_alone_in_order() -> None:
    large = bytes(MAX_BUFFERED_BYTES + 1)

    async def write() -> list[Any]:
        gathered, transport = gathering()
        for data in (b"head ", b"body", large, b"next ", b"one"):
            gathered.write(data)
        gathered.flush()
        gathered.flush()
        return transport.calls

    assert asyncio.run(write()) == [b"head body", large, b"next one"]


def test_unflushed_data_are_sent_in_the_next_turn_of_the_loop() -> None:
    async def write() -> list[Any]:
        gathered, transport = gathering()
        gathered.write(b"the head of a stream")
        assert transport.calls == []
        await asyncio.sleep(0)
        return transport.calls

    assert asyncio.run(write()) == [b"the head of a stream"]


def test_buffered_data_of_a_closed_connection_are_dropped() -> None:
    async def write() -> list[Any]:
        gathered, transport = gathering()
        gathered.write(b"too late")
        transport.close()
        await asyncio.sleep(0)
        return transport.calls

    assert asyncio.run(write()) == ["closed"]


def test_nothing_is_lost_when_it_closes() -> None:
    async def write() -> list[Any]:
        gathered, transport = gathering()
        gathered.write(b"a last word")
        gathered.close()
        assert gathered.get_extra_info("socket") == "the socket"
        return transport.calls

    assert asyncio.run(write()) == [b"a last word", "closed"]
