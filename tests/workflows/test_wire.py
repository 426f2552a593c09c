"""Servers that misbehave: each way is scripted, and ends as an error or an answer, in bounded time and memory."""

import asyncio
import importlib.util
import json
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator
from collections.abc import Callable
from datetime import UTC
from datetime import datetime
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from workflows import ChatClient
from workflows import ModelError
from workflows import ModelSettings
from workflows import ModelTimeout
from workflows import Request
from workflows import Trace
from workflows.trace import storable
from workflows.wire import LONGEST_TOKEN
from workflows.wire import Bounded
from workflows.wire import Events
from workflows.wire import ReplyError
from workflows.wire import longest_text
from workflows.wire import retry_after_s

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "loopback.py"

# As in test_llm.py.
pytestmark = pytest.mark.filterwarnings("ignore", "error:::workflows")

ASK = Request(prompt="Question: x\nAnswer:", system="Answer.", max_tokens=9)
MODEL = "hosted_vllm/org/name"


def import_loopback() -> ModuleType:
    spec = importlib.util.spec_from_file_location("loopback", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["loopback"] = module
    spec.loader.exec_module(module)
    return module


loopback = import_loopback()
made: list[ChatClient] = []


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """litellm loads parts of itself with its first call, which would eat a short time-out."""

    async def call() -> None:
        async with loopback.serve(loopback.Behaviour()) as server:
            for endpoint in ("chat", "completion"):
                await client(server, endpoint=endpoint, timeout_s=60.0).complete(ASK, Trace())
                await made.pop().close()

    asyncio.run(call())


@pytest.fixture(autouse=True)
async def closed() -> AsyncIterator[None]:
    yield
    for one in made:
        await one.close()
    made.clear()
    await asyncio.sleep(0)


@pytest.fixture(params=["chat", "completion"])
def endpoint(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["chat", "completion", "chat openai"])
def way(request: pytest.FixtureRequest) -> dict[str, str]:
    """Settings for each client that reads replies: two of litellm's for chat, and openai's for completions."""
    endpoint, _, provider = str(request.param).partition(" ")
    return {"endpoint": endpoint, "model": f"{provider}/name" if provider else MODEL}


def client(server: Any, **settings: Any) -> ChatClient:
    given = {"model": MODEL, "api_base": server.address, "timeout_s": 10.0}
    made.append(ChatClient(ModelSettings(**{**given, **settings})))
    return made[-1]


def serve(*script: str, **behaviour: Any) -> Any:
    return loopback.serve(loopback.Behaviour(script=script, **behaviour))


async def test_a_reply_byte_by_byte_ends_with_the_time_out(way: dict[str, str]) -> None:
    async with serve("bytes") as server:
        trace = Trace()
        with pytest.raises(ModelTimeout, match=r"within 0\.5 s"):
            await client(server, **way, timeout_s=0.5, max_retries=0).complete(ASK, trace)
        await asyncio.sleep(0.05)
        assert server.open_connections == 0
    (span,) = trace.spans
    assert span.error == "no complete reply within 0.5 s"
    assert 0.45 < span.end_s - span.start_s < 1.5


@pytest.mark.slow
@pytest.mark.parametrize("after", ["1", "date"])
async def test_the_server_says_when_to_come_again(way: dict[str, str], after: str) -> None:
    async with serve(f"429:{after}", text="well then") as server:
        trace = Trace()
        assert await client(server, **way).complete(ASK, trace) == "well then"
    refused, good = trace.spans
    assert "Too Many Requests" in (refused.error or "")
    assert (refused.attempt, good.attempt) == (1, 2)
    waited = good.start_s - refused.end_s
    assert 0.95 < waited < 2.5  # a date is in whole seconds, two from now


async def test_nobody_waits_longer_than_a_try_may_take(way: dict[str, str]) -> None:
    async with serve("429:3600", "429:3600") as server:
        trace = Trace()
        with pytest.raises(ModelError, match=r"asks to wait 3600 s, and timeout_s is 10") as caught:
            await client(server, **way).complete(ASK, trace)
    assert len(trace.spans) == 1
    assert "come again later" in (caught.value.hint or "")


async def test_refusals_to_the_last_try_end_as_an_error(way: dict[str, str]) -> None:
    async with serve("429:0", "429:0", "429:0") as server:
        trace = Trace()
        with pytest.raises(ModelError, match="scripted Too Many Requests"):
            await client(server, **way, max_retries=2).complete(ASK, trace)
    assert [span.attempt for span in trace.spans] == [1, 2, 3]


@pytest.mark.parametrize("fault", ["no-model", "no-model-400"])
async def test_a_model_that_is_not_there_is_named_and_not_asked_again(
    way: dict[str, str], fault: str
) -> None:
    async with serve(fault) as server:
        trace = Trace()
        with pytest.raises(ModelError, match="the server has no such model") as caught:
            await client(server, **way).complete(ASK, trace)
    assert len(trace.spans) == 1
    assert str(caught.value).startswith(f"{way['model']} at http://127.0.0.1:")
    assert "/v1/models lists the server's names" in (caught.value.hint or "")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["flood", "line", "empty", "big-error"])
async def test_ten_megabytes_are_refused_in_little_memory(way: dict[str, str], fault: str) -> None:
    # In a process of its own, else the server's own memory would be counted.
    from subprocess import PIPE

    command = (sys.executable, str(SCRIPT), "--script", fault)
    server = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    assert server.stdout is not None
    address = json.loads(await server.stdout.readline())["api_base"]
    trace = Trace()
    one = ChatClient(ModelSettings(api_base=address, timeout_s=60.0, **way))  # type: ignore[arg-type]
    made.append(one)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError) as caught:
            await one.complete(ASK, trace)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        server.terminate()
        await server.wait()
    (span,) = trace.spans  # it is not tried again
    assert len(span.output) <= longest_text(ASK.max_tokens)
    assert len(str(caught.value)) < 1000
    if fault == "big-error":
        assert "scripted xxx" in str(caught.value) or "Error code: 400" in str(caught.value)
    else:
        assert "too long" in str(caught.value)
        assert "max_tokens" in (span.error or "")
    assert peak < 10 * 2**20
    assert span.end_s - span.start_s < 30


async def test_all_that_was_asked_for_may_be_long(way: dict[str, str]) -> None:
    words = "".join(
        f"{n:x>100} " for n in range(512)
    )  # else litellm thinks that it goes in circles
    request = Request(prompt="x", max_tokens=512)
    async with serve(text=words) as server:
        assert await client(server, **way).complete(request, Trace()) == words.strip()
    assert len(words) < LONGEST_TOKEN * 512


async def test_a_compressed_reply_is_refused(way: dict[str, str]) -> None:
    async with serve("zipped", record=True) as server:
        trace = Trace()
        with pytest.raises(ModelError, match="compressed"):
            await client(server, **way).complete(ASK, trace)
        assert server.received[0].headers["accept-encoding"] == "identity"
    assert len(trace.spans) == 1


@pytest.mark.parametrize(
    ("fault", "text"), [("latin", "caf\ufffd au lait"), ("nul", "one\ufffdtwo\ufffdthree")]
)
async def test_what_is_no_text_is_replaced(way: dict[str, str], fault: str, text: str) -> None:
    async with serve(fault) as server:
        trace = Trace()
        assert await client(server, **way).complete(ASK, trace) == text
    assert trace.spans[0].output == text


async def test_garbage_is_an_error_with_its_span(way: dict[str, str]) -> None:
    async with serve("garbage", text="well then") as server:
        trace = Trace()
        assert await client(server, **way).complete(ASK, trace) == "well then"
    garbage, good = trace.spans
    assert garbage.error == "its reply holds what is no JSON: '{no JSON'"
    assert good.error is None


async def test_a_try_that_broke_off_late_keeps_its_cost(endpoint: str) -> None:
    async with serve("late-cut", text="well then", cached_tokens=3) as server:
        trace = Trace()
        one = client(server, endpoint=endpoint, model="openai/gpt-4o-mini", max_retries=0)
        with pytest.raises(ModelError):
            await one.complete(ASK, trace)
    (span,) = trace.spans
    assert span.error
    assert span.output == "well then"
    assert (span.tokens_in, span.tokens_out, span.tokens_cached) == (16, 2, 3)
    assert span.cost_usd


@pytest.mark.parametrize("fault", ["echo"])
async def test_a_key_that_a_server_says_is_not_passed_on(
    way: dict[str, str], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-very-secret-0001")
    async with serve(fault) as server:
        trace = Trace()
        with pytest.raises(ModelError, match="no such key: Bearer …") as caught:
            await client(server, **way, api_key_env="SOME_KEY").complete(ASK, trace)
    assert "secret" not in str(caught.value) + str(trace.spans)


async def body_of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def read(*pieces: bytes, most: int = 100) -> bytes:
    return b"".join([piece async for piece in Bounded(body_of(*pieces), most)])


async def test_bytes_pass_as_they_are_until_there_are_too_many() -> None:
    assert await read(b"ab", b"", b"c") == b"abc"
    assert await read(b"x" * 100) == b"x" * 100
    with pytest.raises(ReplyError, match="too long: more than 100 bytes"):
        await read(b"x" * 100, b"y")


async def test_characters_may_be_split_between_pieces() -> None:
    assert await read(b"caf\xc3", b"\xa9") == "café".encode()
    assert await read(b"caf\xc3") == "caf\ufffd".encode()


@pytest.mark.parametrize(
    "text",
    [
        'data: {"a": 1}\n\ndata: [DONE]\n\n',
        'event: x\r\ndata: {"a":\r\ndata: 1}\r\n\r\n: ping\r\n\r\n',
        'data: {"a": "\u2028\x85"}\n\n',
        "data: {no JSON",  # whose end may still come
    ],
)
def test_events_of_json_pass_in_any_pieces(text: str) -> None:
    for size in (1, 2, 7, len(text)):
        events = Events()
        for start in range(0, len(text), size):
            events.feed(text[start : start + size])


@pytest.mark.parametrize("data", ["{no JSON", "{}}", "[" * 100_000, "\x00"])
def test_an_event_that_is_no_json_is_refused(data: str) -> None:
    with pytest.raises(ReplyError, match="no JSON"):
        Events().feed(f"data: {data}\n\n")


def http_date(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        (" 7 ", 7),
        ("9" * 400, 999_999_999),
        (lambda: http_date(90), 90),
        (lambda: http_date(-90), 0),
        ("-1", None),
        ("1e3", None),
        ("٣", None),
        ("soon", None),
        ("", None),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
        ("Sun, 06 Nov 1994", None),
    ],
)
def test_when_to_come_again(text: str | Callable[[], str], seconds: float | None) -> None:
    given = text if isinstance(text, str) else text()
    found = retry_after_s({"retry-after": given})
    assert (found is None) == (seconds is None)
    if found is not None:
        assert found == pytest.approx(seconds, abs=2)
    assert retry_after_s({}) is retry_after_s(None) is None


def test_what_is_storable_stays_as_it_is() -> None:
    text = "naïve 👍 \t\n\x01"
    assert storable(text) is text
    assert storable("a\0b\ud800c") == "a\ufffdb\ufffdc"
    began = time.perf_counter()
    storable("\0" * 10**6)
    assert time.perf_counter() - began < 5
