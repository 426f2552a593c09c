"""The latest reply of an address, asked for again and again in a thread: what meters of other hosts read.

Apart from the meters, whose `read` must not wait for a network: it is called between a question's end and the next
question's start.
"""

import threading
import time
import weakref
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Generic
from typing import TypeVar

from tuner.errors import UserError
from tuner.measure import page

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")


class ReplyError(Exception):
    """A reply does not hold what was asked for; says why."""


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """What came of asking once."""

    asked_s: float
    said: T | None
    problem: str | None = None


class Latest(Generic[T]):
    """Asks `url` every `period_s` for as long as it lives; `parse` makes of a reply's text what is wanted.

    `parse` raises ReplyError. The first reply is waited for: raises UserError, with `hint`, where there is none.
    """

    def __init__(
        self, url: str, parse: Callable[[str], T], *, period_s: float, meter: str, hint: str
    ) -> None:
        import httpx

        self._url = url
        self._period_s = period_s
        client = httpx.Client(timeout=page.TIMEOUT_S)
        self._latest = [_ask(client, url, parse)]
        if self._latest[0].problem is not None:
            client.close()
            raise UserError(f"meter: {meter}: {self._latest[0].problem}", hint=hint)
        stop = threading.Event()
        weakref.finalize(self, stop.set)
        # The thread must not know this object, or it would never be let go.
        threading.Thread(
            target=_keep_asking,
            args=(client, url, parse, period_s, self._latest, stop),
            name="tuner-meter-poll",
            daemon=True,
        ).start()

    def reply(self, now_s: float) -> Reply[T]:
        """The latest reply, or that there has been none for long."""
        reply = self._latest[0]
        old_s = now_s - reply.asked_s
        if reply.problem is None and old_s > 2 * self._period_s + 2 * page.TIMEOUT_S:
            return Reply(reply.asked_s, None, f"{self._url} has not answered for {old_s:.0f} s")
        return reply


def _keep_asking(
    client: "httpx.Client",
    url: str,
    parse: Callable[[str], T],
    period_s: float,
    latest: list[Reply[T]],
    stop: threading.Event,
) -> None:
    with closing(client):
        while not stop.wait(period_s):
            latest[0] = _ask(client, url, parse)


def _ask(client: "httpx.Client", url: str, parse: Callable[[str], T]) -> Reply[T]:
    import httpx

    asked_s = time.perf_counter()
    try:
        reply = page.get(client, url)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Reply(asked_s, None, f"nothing answers at {url}: {type(error).__name__}: {error}")
    if not reply.is_success:
        return Reply(asked_s, None, f"{url} answers with {reply.status}: {reply.text[:200]}")
    try:
        return Reply(asked_s, parse(reply.text))
    except ReplyError as error:
        return Reply(asked_s, None, f"{url}: {error}")
