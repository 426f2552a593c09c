"""An OpenAI-compatible server that answers a fixed text at once; apart from the benchmarks, because the tests use it as well.

It speaks just enough HTTP/1.1 over raw asyncio to cost next to nothing: what a client takes against it
is the client's own time. Chat and completions, streamed or whole, kept-alive connections. A script of
faults makes it fail the way servers do.
"""

import argparse
import asyncio
import gzip
import json
import signal
from collections import deque
from collections.abc import AsyncIterator
from collections.abc import Coroutine
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import asynccontextmanager
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any

DRIP_S = 0.02
PROMPT_TOKENS = 16
FLOOD_BYTES = 10_000_000
LAST = b"0\r\n\r\n"
DONE = b"e\r\ndata: [DONE]\n\n\r\n" + LAST

FAULTS = {
    "hang": "never answers",
    "drip": "sends a word now and then for ever",
    "bytes": "sends a good reply a byte at a time, from its first header on",
    "cut": "closes in mid-reply",
    "late-cut": "closes after all of a reply, its usage included, but its end",
    "garbage": "sends what is no JSON",
    "flood": "sends 10 MB of words",
    "line": "sends 10 MB in one line without an end",
    "empty": "sends 10 MB of events that say nothing",
    "zipped": "sends a reply that is compressed, which nobody asked for",
    "latin": "sends bytes that are no UTF-8 within its words",
    "nul": "sends U+0000 and half of a surrogate pair within its words",
    "no-model": "says that it has no such model, as vLLM does: 404",
    "no-model-400": "says the same with 400",
    "big-error": "sends an error whose message is 10 MB long",
    "echo": "refuses the key, and says the whole Authorization header in its message",
    "echo-answer": "answers with the Authorization header",
}
"""What a script may hold beside a status code; `429:2` and `429:date` are refusals that say when to come again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How the server answers. `script` holds a status code or a fault for each request in turn; then all is well."""

    text: str = "Reasoning in a few words. Answer: forty-two"
    delay_s: float = 0.0
    """Before the first byte."""
    chunk_delay_s: float = 0.0
    """Before each chunk with content."""
    places: int | None = None
    """How many requests are answered at once, the others waiting; None for all. It takes a delay to show."""
    usage: bool = True
    most_tokens: int | None = None
    """Requests that ask for longer replies are refused; None for none."""
    cached_tokens: int | None = None
    script: Sequence[str] = ()
    probe: str = "200"
    """The script's entry for every request that is none for a completion, such as the list of models."""
    model: str | None = None
    """The one that it has, and any other is refused as vLLM does; None answers to every name."""
    record: bool = False
    """Whether requests are kept for whoever runs the server in its own process."""


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came in."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


class Loopback:
    """What all connections share: the behaviour, and replies that are made once."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.address = ""
        """`http://127.0.0.1:port/v1`, once it listens."""
        self.received: list[Received] = []
        self.open_connections = 0
        self.places = None if behaviour.places is None else asyncio.Semaphore(behaviour.places)
        self._script = deque(behaviour.script)
        self._made: dict[tuple[bool, bool, bool], list[bytes]] = {}

    def next_fault(self) -> str:
        """The script's entry for this request, "200" when it has none left."""
        return self._script.popleft() if self._script else "200"

    def reply(self, *, chat: bool, stream: bool, usage: bool) -> list[bytes]:
        """A whole good response, cut where the server may pause: before each chunk with content."""
        key = (chat, stream, usage)
        if key not in self._made:
            make = self._streamed if stream else self._whole
            self._made[key] = list(make(chat, usage))
        return self._made[key]

    def _words(self) -> list[str]:
        return [word for word in self.behaviour.text.split(" ") if word]

    def _usage(self) -> dict[str, Any]:
        count = len(self._words())
        usage: dict[str, Any] = {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": count,
            "total_tokens": PROMPT_TOKENS + count,
        }
        if self.behaviour.cached_tokens is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": self.behaviour.cached_tokens}
        return usage

    def _streamed(self, chat: bool, usage: bool) -> Iterator[bytes]:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        if chat:
            head += event(chat, [choice(chat, "", role=True)])
        yield head
        for number, word in enumerate(self._words()):
            yield event(chat, [choice(chat, f" {word}" if number else word)])
        tail = event(chat, [choice(chat, "", finish="stop")])
        if usage:
            tail += event(chat, [], usage=self._usage())
        yield tail + DONE

    def _whole(self, chat: bool, usage: bool) -> Iterator[bytes]:
        text = self.behaviour.text
        answer = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        content = envelope(chat, [{"index": 0, "finish_reason": "stop", **answer}])
        content["object"] = "chat.completion" if chat else "text_completion"
        if usage:
            content["usage"] = self._usage()
        yield response(200, content)


class Connection(asyncio.Protocol):
    """One client's connection; answers its requests one after the other."""

    def __init__(self, server: Loopback) -> None:
        self._server = server
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to listen."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.open_connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what was under way."""
        self._server.open_connections -= 1
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._buffer += data
        self._work()

    def _work(self) -> None:
        while self._task is None and (received := self._take()) is not None:
            if self._server.behaviour.record:
                self._server.received.append(received)
            self._answer(received)

    def _take(self) -> Received | None:
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return None
        self._buffer = rest[length:]
        body = json.loads(rest[:length]) if length else {}
        return Received(first.split(" ")[1], headers, body)

    def _answer(self, received: Received) -> None:
        chat = received.path.endswith("/chat/completions")
        behaviour = self._server.behaviour
        if not chat and not received.path.endswith("/completions"):
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            listing = {"object": "list", "data": [{"id": behaviour.model or "loopback"}]}
            parts = [head, http_chunk(json.dumps(listing).encode()) + LAST]
            self._start(self._say(behaviour.probe, parts, received, chat=False))
            return
        stream = bool(received.body.get("stream"))
        asked = not stream or bool((received.body.get("stream_options") or {}).get("include_usage"))
        parts = self._server.reply(chat=chat, stream=stream, usage=asked and behaviour.usage)
        fault = self._server.next_fault()
        if behaviour.model not in (None, received.body.get("model")):
            fault = "no-model"
        if received.body.get("max_tokens", 0) > (behaviour.most_tokens or float("inf")):
            fault = "400"
        if fault == "200" and not behaviour.delay_s and not behaviour.chunk_delay_s:
            self._transport.write(b"".join(parts))
            return
        self._start(self._answer_slowly(fault, parts, received, chat))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = asyncio.create_task(work)
        self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled():
            self._work()

    async def _answer_slowly(
        self, fault: str, parts: Sequence[bytes], received: Received, chat: bool
    ) -> None:
        async with self._server.places or nullcontext():
            await asyncio.sleep(self._server.behaviour.delay_s)
            await self._say(fault, parts, received, chat=chat)

    async def _say(
        self, fault: str, parts: Sequence[bytes], received: Received, *, chat: bool
    ) -> None:
        match fault:
            case "200":
                await self._speak(parts)
            case "hang":
                await asyncio.Event().wait()
            case "drip":
                self._transport.write(parts[0])
                while True:
                    self._transport.write(event(chat, [choice(chat, "drip ")]))
                    await asyncio.sleep(DRIP_S)
            case "bytes":
                for byte in b"".join(parts):
                    self._transport.write(bytes([byte]))
                    await asyncio.sleep(DRIP_S)
            case "cut" | "late-cut":
                end = len(parts) // 2 if fault == "cut" else len(parts)
                sent = b"".join(parts[:end])
                self._transport.write(sent.removesuffix(DONE))
                self._transport.close()
            case "flood" | "line" | "empty":
                self._transport.write(parts[0])
                for piece in flood(fault, chat):
                    self._transport.write(piece)
                    await asyncio.sleep(0)
                self._transport.write(LAST)
            case _:
                self._transport.write(refusal_or_oddity(fault, parts[0], received, chat))

    async def _speak(self, parts: Sequence[bytes]) -> None:
        self._transport.write(parts[0])
        for part in parts[1:-1]:
            await asyncio.sleep(self._server.behaviour.chunk_delay_s)
            self._transport.write(part)
        self._transport.write(b"".join(parts[1:][-1:]))


def flood(fault: str, chat: bool) -> Iterator[bytes]:
    """The body of a reply that is far too long."""
    if fault == "line":
        yield http_chunk(b"data: ")
        pieces = [http_chunk(b"x" * 2**16)]
    elif fault == "flood":
        pieces = [event(chat, [choice(chat, "word " * 1000)])]
    else:
        pieces = [event(chat, []) * 100]
    for _ in range(FLOOD_BYTES // len(pieces[0])):
        yield pieces[0]


def refusal_or_oddity(fault: str, head: bytes, received: Received, chat: bool) -> bytes:
    """A whole response: an error, or a reply with something odd in it after its usual `head`."""
    said = received.headers.get("authorization", "")
    end = event(chat, [choice(chat, "", finish="stop")]) + DONE
    match fault:
        case "garbage":
            return head + http_chunk(b"data: {no JSON\n\n") + DONE
        case "zipped":
            headers = head.partition(b"\r\n\r\n")[0] + b"\r\nContent-Encoding: gzip\r\n\r\n"
            return headers + http_chunk(gzip.compress(b"data: [DONE]\n\n")) + LAST
        case "latin":
            words = event(chat, [choice(chat, "caf? au lait")]).replace(b"f?", b"f\xe9")
            return head + words + end
        case "nul":
            words = event(chat, [choice(chat, "one\0two\ud83dthree")])
            return head + words + end
        case "echo-answer":
            words = event(chat, [choice(chat, said)])
            return head + words + end
        case "echo":
            return refusal(401, f"scripted: no such key: {said}")
        case "big-error":
            return refusal(400, "scripted " + "x" * FLOOD_BYTES)
        case "no-model" | "no-model-400":
            message = f"The model `{received.body.get('model')}` does not exist."
            return refusal(404 if fault == "no-model" else 400, message)
        case _:
            code, _, after = fault.partition(":")
            if after == "date":
                now = datetime.now(UTC) + timedelta(seconds=2)
                after = format_datetime(now, usegmt=True)
            return refusal(int(code), f"scripted {HTTPStatus(int(code)).phrase}", after)


def refusal(code: int, message: str, after: str = "") -> bytes:
    """An error as OpenAI-compatible servers send it, and when to come again."""
    content = {"error": {"message": message, "type": "scripted", "code": code}}
    return response(code, content, f"Retry-After: {after}\r\n" if after else "")


def envelope(chat: bool, choices: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What every reply and every chunk of one looks like around its choices."""
    return {
        "id": "loopback",
        "object": "chat.completion.chunk" if chat else "text_completion",
        "created": 0,
        "model": "loopback",
        "choices": list(choices),
    }


def choice(
    chat: bool, text: str, *, role: bool = False, finish: str | None = None
) -> dict[str, Any]:
    """One streamed choice with that text."""
    if not chat:
        return {"index": 0, "text": text, "finish_reason": finish}
    delta = {"role": "assistant"} if role else {}
    if finish is None:
        delta["content"] = text
    return {"index": 0, "delta": delta, "finish_reason": finish}


def event(
    chat: bool, choices: Sequence[Mapping[str, Any]], *, usage: Mapping[str, Any] | None = None
) -> bytes:
    """One server-sent event, framed as an HTTP chunk."""
    content = envelope(chat, choices)
    if usage is not None:
        content["usage"] = usage
    return http_chunk(f"data: {json.dumps(content)}\n\n".encode())


def http_chunk(data: bytes) -> bytes:
    """Data framed for `Transfer-Encoding: chunked`."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def response(code: int, content: Mapping[str, Any], headers: str = "") -> bytes:
    """A whole JSON response; each of the headers ends its line."""
    body = json.dumps(content).encode()
    head = (
        f"HTTP/1.1 {code} {HTTPStatus(code).phrase}\r\n"
        f"Content-Type: application/json\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@asynccontextmanager
async def serve(behaviour: Behaviour, *, port: int = 0) -> AsyncIterator[Loopback]:
    """A server on 127.0.0.1 for as long as the context lasts; port 0 takes a free one."""
    loopback = Loopback(behaviour)
    loop = asyncio.get_running_loop()
    connections: list[Connection] = []

    def connect() -> Connection:
        connections.append(Connection(loopback))
        return connections[-1]

    server = await loop.create_server(connect, "127.0.0.1", port)
    loopback.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield loopback
    finally:
        server.close()
        for connection in connections:
            connection._transport.abort()
        await asyncio.sleep(0)


async def run(behaviour: Behaviour, port: int) -> None:
    """Serve until SIGTERM or SIGINT; the address goes to stdout as one line of JSON."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serve(behaviour, port=port) as loopback:
        print(json.dumps({"api_base": loopback.address}), flush=True)
        await stop.wait()


def scripted(text: str) -> str:
    """One entry of `--script`. Raises ArgumentTypeError for what is neither a status code nor a fault."""
    code, _, after = text.partition(":")
    known = code.isdigit() and int(code) in set(HTTPStatus)
    if text in FAULTS or (known and (not after or after == "date" or after.isdigit())):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is no status code and none of {', '.join(FAULTS)}")


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (default)")
    parser.add_argument("--text", default=Behaviour().text, help="the reply to every request")
    parser.add_argument("--delay-s", type=float, default=0.0, help="before the first byte")
    parser.add_argument("--chunk-delay-s", type=float, default=0.0, help="before each chunk")
    parser.add_argument(
        "--probe", type=scripted, default="200", help="the entry for other requests"
    )
    parser.add_argument("--places", type=int, help="requests answered at once; all by default")
    parser.add_argument("--model", help="the only one that it has; it answers to any by default")
    parser.add_argument("--most-tokens", type=int, help="refuse requests for longer replies")
    parser.add_argument("--no-usage", action="store_true", help="report no token counts")
    parser.add_argument("--cached-tokens", type=int, help="report that many as cached")
    parser.add_argument(
        "--script",
        type=scripted,
        nargs="*",
        default=(),
        help=f"for each request in turn a status code or one of: {', '.join(FAULTS)}",
    )
    given = parser.parse_args()
    behaviour = Behaviour(
        text=given.text,
        delay_s=given.delay_s,
        chunk_delay_s=given.chunk_delay_s,
        places=given.places,
        usage=not given.no_usage,
        most_tokens=given.most_tokens,
        cached_tokens=given.cached_tokens,
        script=given.script,
        probe=given.probe,
        model=given.model,
    )
    asyncio.run(run(behaviour, given.port))


if __name__ == "__main__":
    main()
