"""Bytes of a reply on their way from a model's server: no more of them than a reply may take, and all of them UTF-8.

Apart from `llm`, which makes replies of them: here stands what a server may send that is not the one we hoped for.

A line that never ends would be kept until memory ends, by whichever client reads it. Text that is no UTF-8, and events
that are no JSON, end the reply in some clients, and are passed over in others. So these are settled before a client sees
the bytes.
"""

import codecs
import json
import time
from collections.abc import AsyncIterator
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import httpx
import httpx2

ANY_REPLY_BYTES = 2**18
"""What a reply may take however little was asked for: what a server says of itself, pings while it thinks."""

TOKEN_BYTES = 2**12
"""And for each token that was asked for: each comes in an event of its own, of 200 to 400 bytes as servers write them."""

LONGEST_TOKEN = 128
"""Characters: no token of OpenAI's three public vocabularies is longer."""

ANY_TEXT = 2**10
"""Characters that a reply may have beyond its tokens."""

ASK_PLAIN: Mapping[str, str] = {"Accept-Encoding": "identity"}
"""A header: pieces that are compressed come later, and unpack to more than was counted."""


ERROR_BYTES = 2**16
"""What is read of an error."""


class ReplyError(Exception):
    """What a server sends is no reply that can be taken; says what it is, and as which status of HTTP it counts."""

    def __init__(self, message: str, status_code: int = 0) -> None:
        super().__init__(message)
        self.status_code = status_code


class Bounded(httpx.AsyncByteStream, httpx2.AsyncByteStream):
    """A response's body as UTF-8, which ends with ReplyError once it is too long; where it is `cut`, it just ends."""

    def __init__(
        self, body: Any, most: int, *, cut: bool = False, events: "Events | None" = None
    ) -> None:
        self.refused: ReplyError | None = None
        """What it ended with; clients that read it may raise something else in its place."""
        self._body = body
        self._most = most
        self._cut = cut
        self._events = events

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Its pieces as they come."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        size = 0
        async for piece in self._body:
            size += len(piece)
            if size > self._most and self._cut:
                return
            if size > self._most:
                self.refused = too_long(f"more than {self._most:,} bytes")
                raise self.refused
            text = decoder.decode(piece)
            self._check(text)
            yield text.encode()
        yield decoder.decode(b"", final=True).encode()

    def _check(self, text: str) -> None:
        if self._events is not None:
            try:
                self._events.feed(text)
            except ReplyError as refused:
                self.refused = refused
                raise

    async def aclose(self) -> None:
        """Let go of the connection."""
        await self._body.aclose()


class Events:
    """Server-sent events as their text comes in pieces; raises ReplyError at one whose data is no JSON."""

    def __init__(self) -> None:
        self._rest = ""
        self._data: list[str] = []

    def feed(self, text: str) -> None:
        """Look at the events that are whole with this piece."""
        if "\n" not in text:
            self._rest += text
            return
        *lines, self._rest = f"{self._rest}{text}".split("\n")
        for line in lines:
            if line.startswith("data:"):
                self._data.append(line[len("data:") :].strip())
            elif not line.strip():
                self._end()

    def _end(self) -> None:
        data, self._data = "\n".join(self._data), []
        if data and not data.startswith("[DONE]"):
            try:
                json.loads(data)
            except (ValueError, RecursionError):
                raise ReplyError(f"its reply holds what is no JSON: {data[:80]!r}", HTTPStatus.BAD_GATEWAY) from None  # fmt: skip


def bound(stream: Any, max_tokens: int) -> Bounded | None:
    """Bound what is read of a stream that litellm or openai has opened, for a reply of so many tokens.

    None where it has no response of httpx, as with providers that litellm reaches by libraries of theirs. Raises
    ReplyError for a body that is compressed.
    """
    within = getattr(stream, "completion_stream", stream)
    for name in ("http_response", "response"):
        response = getattr(within, name, None)
        if isinstance(response, httpx.Response | httpx2.Response):
            coding = response.headers.get("content-encoding", "identity")
            if coding != "identity":
                raise ReplyError(f"its reply is compressed ({coding[:20]}), which was not asked for")  # fmt: skip
            streamed = "text/event-stream" in response.headers.get("content-type", "")
            body = Bounded(
                response.stream,
                ANY_REPLY_BYTES + max_tokens * TOKEN_BYTES,
                events=Events() if streamed else None,
            )
            response.stream = body
            return body
    return None


async def cut_error(response: Any) -> None:
    """Have a response of httpx end soon where it is an error: a hook for its clients."""
    if response.is_error and not response.is_stream_consumed:
        # As it came, should it be compressed: what it unpacks to is bounded by what a byte can stand for.
        response.stream = Bounded(response.stream, ERROR_BYTES, cut=True)


def longest_text(max_tokens: int) -> int:
    """Characters that so many tokens can come to."""
    return ANY_TEXT + max_tokens * LONGEST_TOKEN


def too_long(what: str) -> ReplyError:
    """A reply that no honest server makes of the tokens that it was asked for."""
    return ReplyError(f"its reply is too long: {what}, so it does not keep to max_tokens")


def retry_after_s(headers: Mapping[str, str] | None) -> float | None:
    """Seconds that a `Retry-After` asks to wait: a number of them, or a date; None where there is none that can be read."""
    text = (headers or {}).get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        then = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, then - time.time())
