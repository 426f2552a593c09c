"""Listening for an agent's API, and what ends it: SIGTERM and Ctrl-C let requests under way finish, for a while.

Apart from `app`, which is the same behind any server.
"""

import ipaddress
import math
import os
import signal
import socket
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from tuner.errors import UserError

if TYPE_CHECKING:
    from starlette.applications import Starlette


def read_api_key(host: str, api_key_env: str | None) -> str | None:
    """The key that clients must send, None where none is asked for: on a loopback address, unless a variable is named.

    Raises UserError where other machines could ask without a key.
    """
    if api_key_env is not None:
        key = os.environ.get(api_key_env)
        if not key:
            raise UserError(
                f"--api-key-env: the environment has no {api_key_env}",
                hint=f"export {api_key_env}=…",
            )
        return key
    if not _is_loopback(host):
        raise UserError(
            f"--host {host}: other machines could ask there, and no key is asked of them",
            hint="name the environment variable that holds one: --api-key-env TUNER_API_KEY",
        )
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens, on any free port for 0. Raises UserError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
        # Connections inherit it. Else a reply, of which head and body are written apart, waits for 40 ms: asyncio
        # sees to that only for sockets that say that they are TCP's, which those made by this function do not.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port}: cannot be listened on: {error.strerror}",
            hint="choose another --port, or 0 for any free one",
        ) from None


def address(listening: socket.socket) -> str:
    """What a client takes for its `base_url`."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def serve(
    app: "Starlette",
    listening: socket.socket,
    *,
    grace_s: float,
    stopping: Callable[[], None] = lambda: None,
) -> None:
    """Answer until SIGTERM or SIGINT; then take nothing on, and end once all is answered, or `grace_s` later.

    `stopping` hears of it first: answers without an end have to come to one. A second SIGINT ends it at once.
    """
    import uvicorn

    class Server(uvicorn.Server):
        """Says when it has been told to end, which is before it waits for answers under way."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            stopping()
            super().handle_exit(sig, frame)

    server = Server(
        uvicorn.Config(
            app,
            lifespan="on",
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=math.ceil(grace_s),
        )
    )

    def stop() -> None:
        server.should_exit = True

    with _signals(stop):
        server.run(sockets=[listening])


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """Within, the signals that end a server do just that.

    Uvicorn sends those that it has heard once more after it has ended: what is to be closed after it must be closed.
    """
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: stop()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
