"""Looks at a server's /metrics while questions are answered: in a thread of its own, so that it is not late when they are many.

Apart from the engines, which read what it gets, and from `reading`, which sums it up.
"""

import ipaddress
import ssl
import threading
import time
from functools import cache
from http import HTTPStatus
from types import TracebackType
from typing import Self

from tuner.measure import page
from tuner.measure.page import Page
from tuner.measure.server.engines import read_metrics
from tuner.measure.server.reading import ServerReading
from tuner.measure.server.reading import Timed
from tuner.measure.server.reading import read_window

PERIOD_S = 0.5
"""Between two scrapes. Each costs vLLM 5 ms and us 4 (of one core, 1 %); with llama.cpp, 0.3 and 1."""

PATHS = ("/metrics", "/prometheus/metrics")
"""TensorRT-LLM's first one is JSON, of iterations; its second one is what the others' first is."""

NOT_YET = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)

HINT = "llama.cpp has metrics with --metrics, SGLang with --enable-metrics, TensorRT-LLM with return_perf_metrics"


class Scraper:
    """A server's metrics from `__enter__` to `__exit__`, once at each of them and every `period_s` between.

    `root` is the server's address without /v1, `api_key` what it wants as a bearer's, `bytes_per_token` what keys
    and values of a token take (`kv_bytes_per_token`). Nothing that the server does or fails to do raises.
    """

    def __init__(
        self,
        root: str,
        *,
        period_s: float = PERIOD_S,
        api_key: str | None = None,
        bytes_per_token: float | None = None,
    ) -> None:
        self._root = root.rstrip("/")
        self._period_s = period_s
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._bytes_per_token = bytes_per_token
        self._paths: tuple[str, ...] = PATHS
        self._engine: str | None = None
        self._samples: list[Timed] = []
        self._problem = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tuner-scraper", daemon=True)

    def __enter__(self) -> Self:
        import httpx

        self._client = httpx.Client(
            headers=self._headers,
            timeout=page.TIMEOUT_S,
            verify=authorities(),
            follow_redirects=True,  # some servers have theirs at /metrics/
            trust_env=not is_loopback(self._root),  # no proxy stands between us and this machine
        )
        self._scrape()
        # A server that answers and has no metrics will have none later; one that was slow will answer.
        if self._paths:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._paths:
            self._scrape()
        self._client.close()

    def reading(self) -> ServerReading:
        """What the window came to; to be asked once it is closed."""
        if self._engine is None or len(self._samples) < 2:
            return ServerReading(
                engine=self._engine,
                scrapes=len(self._samples),
                problem=self._problem or "scraped only once",
            )
        return read_window(self._engine, self._samples, bytes_per_token=self._bytes_per_token)

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            self._scrape()

    def _scrape(self) -> None:
        """Take a sample, or note why there is none."""
        import httpx

        for path in self._paths:
            try:
                reply = self._get(path)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                self._problem = f"{path}: {type(error).__name__}: {error}"
                return
            if reply.status in NOT_YET:
                self._problem = f"{path}: {_said(reply)}"
                return
            if self._read(path, reply):
                self._paths = (path,)
                return
        if not self._samples:
            self._paths = ()

    def _get(self, path: str) -> Page:
        import httpx

        try:
            return page.get(self._client, self._root + path)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            # The connection was kept, and closed by the server meanwhile: a new one may do.
            return page.get(self._client, self._root + path)

    def _read(self, path: str, reply: Page) -> bool:
        """Whether the reply was a page of metrics that is understood."""
        if not reply.is_success:
            # What another path has said is more telling than that this one is not there.
            said = f"{path}: {_said(reply)} ({HINT})"
            self._problem = self._problem or said
            return False
        try:
            engine, sample = read_metrics(reply.text)
        except ValueError as error:
            self._problem = f"{path}: {error}"
            return False
        self._engine = engine
        self._samples.append((time.perf_counter(), sample))
        return True


def _said(reply: Page) -> str:
    import httpx

    return f"{reply.status} {httpx.codes.get_reason_phrase(reply.status)}".strip()


@cache
def authorities() -> ssl.SSLContext:
    """What the certificates of servers are held against: read once, as that takes longer than a whole call."""
    import httpx

    return httpx.create_ssl_context()


def is_loopback(url: str) -> bool:
    """Whether an address is this machine's own."""
    import httpx

    try:
        host = httpx.URL(url).host
    except httpx.InvalidURL:
        return False
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
