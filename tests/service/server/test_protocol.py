import asyncio
from typing import Any

import uvicorn

from service.server.protocol import MAX_BUFFERED_BYTES, BufferedProtocol, BufferedTransport


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


def test_a_connection_whose_body_ended_after_its_response_is_closed_when_it_idles() -> None:
    async def refuse(_: Any, __: Any, send: Any) -> None:
        await send(
            {"type": "http.response.start", "status": 429, "headers": [(b"content-length", b"0")]}
        )
        await send({"type": "http.response.body", "body": b""})

    async def post() -> bytes:
        config = uvicorn.Config(
            refuse, http=BufferedProtocol, timeout_keep_alive=1, log_config=None, lifespan="off"
        )
        config.load()
        state = uvicorn.server.ServerState()
        server = await asyncio.get_running_loop().create_server(
            lambda: BufferedProtocol(config, state, {}), "127.0.0.1", 0
        )
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 4\r\n\r\nbo")
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"dy")
            assert await asyncio.wait_for(reader.read(), 60) == b""  # the other side has closed
            writer.close()
        return head

    assert asyncio.run(post()).startswith(b"HTTP/1.1 429 ")
