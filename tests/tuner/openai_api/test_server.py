"""Who may ask: a key wherever other machines could."""

import socket

import pytest

from tuner.errors import UserError
from tuner.openai_api.server import address
from tuner.openai_api.server import bind
from tuner.openai_api.server import read_api_key


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "localhost", "::1"])
def test_a_loopback_address_needs_no_key(host):
    assert read_api_key(host, None) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "myhost"])
def test_any_other_does(host, monkeypatch):
    with pytest.raises(UserError, match="no key is asked of them") as refused:
        read_api_key(host, None)
    assert "--api-key-env" in str(refused.value.hint)
    with pytest.raises(UserError, match="the environment has no KEY"):
        read_api_key(host, "KEY")
    monkeypatch.setenv("KEY", "sk")
    assert read_api_key(host, "KEY") == "sk"


def test_a_port_that_is_taken_is_a_mistake_of_the_users():
    with bind("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert address(listening) == f"http://127.0.0.1:{port}/v1"
        with pytest.raises(UserError, match=f"--port {port}: cannot be listened on"):
            bind("127.0.0.1", port)
    with pytest.raises(UserError, match="cannot be listened on"):
        bind("no such host", 0)


def test_connections_send_small_replies_at_once():
    with (
        bind("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
