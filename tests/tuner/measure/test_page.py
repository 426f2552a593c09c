"""Pages that never end: given up, whether they come fast or byte by byte, and whoever asks goes on."""

import itertools
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler

import httpx
import pytest

from tuner.errors import UserError
from tuner.measure import MeterSpec
from tuner.measure import make_meter
from tuner.measure import page
from tuner.measure.server.scraper import Scraper

Pieces = Callable[[], Iterator[bytes]]


def flood() -> Iterator[bytes]:
    return itertools.repeat(b"x" * 2**16)


def drip() -> Iterator[bytes]:
    for _ in range(100):
        yield b"x"
        time.sleep(0.02)


Listen = Callable[[type[BaseHTTPRequestHandler]], str]


@pytest.fixture
def sending(listen: Listen) -> Callable[[Pieces], str]:
    """Starts a server that answers with these pieces; its root."""

    def begin(pieces: Pieces) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                with suppress(OSError):
                    for piece in pieces():
                        self.wfile.write(piece)

        return listen(Handler)

    return begin


ENDLESS = [(flood, "more than 16 MiB"), (drip, "still sending after 0.2 s")]


@pytest.mark.slow
@pytest.mark.parametrize(("pieces", "said"), ENDLESS)
def test_a_page_without_end_is_given_up(
    sending: Callable[[Pieces], str], monkeypatch: pytest.MonkeyPatch, pieces: Pieces, said: str
) -> None:
    monkeypatch.setattr(page, "TIMEOUT_S", 0.1 if pieces is drip else 2.0)
    root = sending(pieces)
    with httpx.Client(timeout=1.0) as client, pytest.raises(httpx.HTTPError, match=said):
        page.get(client, root)
    with Scraper(root, period_s=0.05) as scraper:
        pass
    assert said in str(scraper.reading().problem)
    spec = MeterSpec.model_validate({"dcgm": {"url": f"{root}/metrics"}})
    with pytest.raises(UserError, match=said):
        make_meter(spec, pid=None)


def test_a_page_that_ends_is_whole(sending: Callable[[Pieces], str]) -> None:
    root = sending(lambda: iter([b"one \xc3", b"\xa9\xff"]))
    with httpx.Client(timeout=1.0) as client:
        found = page.get(client, root)
    assert (found.status, found.text, found.is_success) == (200, "one é\ufffd", True)
