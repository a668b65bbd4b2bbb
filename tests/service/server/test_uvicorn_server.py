import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from service.server.connections import Connections
from service.server.limits import ConnectionLimits, Refusal, Rendered, ServedApp
from service.server.uvicorn_server import (
    Server,
    Shutdown,
    Tls,
    bind,
    bind_unix,
    describe,
    is_public,
    serve,
    share,
)

LIMITS = ConnectionLimits(max_connections=1, head_timeout=1, idle_timeout=1, send_timeout=1)


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "lifespan"
    for event in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{event}.complete"})


def refuse(refusal: Refusal) -> Rendered:
    raise AssertionError(refusal)


def nothing() -> None: ...


def test_a_bound_address_is_taken_for_others() -> None:
    with bind("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        assert describe(bound, Tls()) == f"http://127.0.0.1:{port}"
        bound.listen()
        with pytest.raises(OSError, match="in use"):
            bind("127.0.0.1", port)
    with pytest.raises(socket.gaierror):
        bind("no such host", 0)


def test_an_ipv6_address_is_in_brackets() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    with bind("::1", 0) as bound:
        assert describe(bound, Tls()).startswith("http://[::1]:")


def test_a_unix_socket_replaces_one_that_nobody_listens_on(tmp_path: Path) -> None:
    path = tmp_path / "service.sock"
    with bind_unix(path) as bound:
        assert describe(bound, Tls()) == f"unix:{path}"
        bound.listen()
        with pytest.raises(OSError, match="in use"):
            bind_unix(path)
    with bind_unix(path):
        pass
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OSError, match="in use"):
        bind_unix(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"


def test_with_a_certificate_the_url_has_another_scheme(tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.pem"
    with bind("127.0.0.1", 0) as bound:
        assert describe(bound, Tls(certificate)).startswith("https://127.0.0.1:")
        assert not is_public(bound)
    with pytest.raises(OSError, match="No such file"):
        Tls(certificate).check()
    certificate.write_text("none")
    with pytest.raises(OSError, match=r"PEM|NO_START_LINE"):
        Tls(certificate).check()
    Tls().check()


def test_a_shared_address_is_taken_for_sockets_that_do_not_share() -> None:
    with share(bind("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with bind("127.0.0.1", port, shared=True) as second:
            assert second.getsockname() == first.getsockname()
        with pytest.raises(OSError, match="in use"):
            bind("127.0.0.1", port)


def test_a_server_that_is_ready_beats() -> None:
    done: list[str] = []
    status = serve(
        ServedApp(app, app, refuse),
        bind("127.0.0.1", 0),
        LIMITS,
        Shutdown(0, 1, nothing, must_end=lambda: True),
        on_ready=lambda: done.append("ready"),
        on_hangup=nothing,
        on_beat=lambda: done.append("beat"),
        tls=Tls(),
    )
    assert (status, done) == (0, ["ready", "beat"])


def test_a_signal_that_is_sent_twice_at_once_does_not_skip_the_delay() -> None:
    shutdown = Shutdown(60, 1, nothing, must_end=lambda: False)
    server = Server(uvicorn.Config(app), Connections(LIMITS), shutdown, nothing, nothing, nothing)
    server.handle_exit(signal.SIGTERM, None)
    server.handle_exit(signal.SIGTERM, None)
    assert not server.should_exit
    server.handle_exit(signal.SIGINT, None)
    assert server.should_exit
