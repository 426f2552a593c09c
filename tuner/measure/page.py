"""One page of a server, asked for by a thread: whole or not at all, however much or slowly the server sends.

Apart from `latest` and `server.scraper`, which ask again and again, and for as long as a study runs.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

PAGE_BYTES = 2**24
"""Exporters of eight GPUs and servers of a hundred models send less than a hundredth of it."""

TIMEOUT_S = 2.0
"""Without a byte, and twice as long for all of them: a server that is busy answers late, but what it says then is as true."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a server answered."""

    status: int
    text: str

    @property
    def is_success(self) -> bool:
        """Whether it is what was asked for."""
        return self.status // 100 == 2


def get(client: "httpx.Client", url: str) -> Page:
    """A GET with a client whose timeout is TIMEOUT_S. Raises httpx.HTTPError, also for a page that does not end, and httpx.InvalidURL."""
    import httpx

    from workflows.wire import ASK_PLAIN

    began_s, content = time.monotonic(), bytearray()
    with client.stream("GET", url, headers=ASK_PLAIN) as reply:
        for piece in reply.iter_raw():
            content += piece
            if len(content) > PAGE_BYTES:
                raise httpx.HTTPError(f"it sends more than {PAGE_BYTES // 2**20} MiB")
            if time.monotonic() - began_s > 2 * TIMEOUT_S:
                raise httpx.ReadTimeout(f"still sending after {2 * TIMEOUT_S:g} s")
    return Page(reply.status_code, content.decode("utf-8", errors="replace"))
