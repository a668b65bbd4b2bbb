import socket
from pathlib import Path

import pytest

from service.server.uvicorn_server import Tls, bind, bind_unix, describe, is_public, share


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
