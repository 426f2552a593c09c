"""Real HTTP against a server on this machine: whatever the way through litellm, one try is one span."""

import asyncio
import contextvars
import gc
import importlib.util
import sys
import threading
from collections.abc import AsyncIterator
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from openai import OpenAIError

from workflows import ChatClient
from workflows import ModelError
from workflows import ModelSettings
from workflows import Request
from workflows import Span
from workflows import Trace
from workflows import capture
from workflows.llm import import_litellm

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "loopback.py"
MODEL = "hosted_vllm/org/name"
TEXT = "to be or not"
SECRET = "sk-very-secret-4711"

# litellm and what it stands on warn of themselves.
pytestmark = pytest.mark.filterwarnings("ignore", "error:::workflows")


def import_loopback() -> ModuleType:
    spec = importlib.util.spec_from_file_location("loopback", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["loopback"] = module
    spec.loader.exec_module(module)
    return module


loopback = import_loopback()
litellm = import_litellm()
imported_before = litellm.completion
capture.install()


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """litellm drops its clients of completion endpoints unclosed, which is to be said here and not at the end of all tests."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
async def closed() -> AsyncIterator[None]:
    yield
    await litellm.close_litellm_async_clients()
    litellm.in_memory_llm_clients_cache.flush_cache()
    await asyncio.sleep(0)


def reach(server: Any, **more: Any) -> dict[str, Any]:
    given = {"model": MODEL, "api_base": server.address, "api_key": SECRET, "timeout": 10.0}
    return {**given, "max_retries": 0, **more}


def ask(server: Any, content: str = "hello there", **more: Any) -> dict[str, Any]:
    return reach(server, messages=[{"role": "user", "content": content}], **more)


def text_of(reply: Any) -> str:
    return "".join(capture._said(reply))


async def chat(server: Any, **more: Any) -> str:
    return text_of(await litellm.acompletion(**ask(server, **more)))


async def chat_sync(server: Any, **more: Any) -> str:
    return text_of(await asyncio.to_thread(litellm.completion, **ask(server, **more)))


async def chat_by_position(server: Any, **more: Any) -> str:
    given = ask(server, **more)
    model, messages = given.pop("model"), given.pop("messages")
    return text_of(await asyncio.to_thread(litellm.completion, model, messages, **given))


async def chat_imported_before(server: Any, **more: Any) -> str:
    return text_of(await asyncio.to_thread(imported_before, **ask(server, **more)))


async def chat_of_main(server: Any, **more: Any) -> str:
    return text_of(await asyncio.to_thread(litellm.main.completion, **ask(server, **more)))


async def chat_by_router(server: Any, **more: Any) -> str:
    params = reach(server)
    router = litellm.Router(
        model_list=[{"model_name": "m", "litellm_params": params}], num_retries=0
    )
    messages = [{"role": "user", "content": "hello there"}]
    return text_of(await router.acompletion(model="m", messages=messages, **more))


async def text(server: Any, **more: Any) -> str:
    return text_of(await litellm.atext_completion(prompt="hello there", **reach(server, **more)))


async def text_sync(server: Any, **more: Any) -> str:
    given = reach(server, prompt="hello there", **more)
    return text_of(await asyncio.to_thread(litellm.text_completion, **given))


Way = Callable[..., Awaitable[str]]
WAYS: list[Way] = [
    chat,
    chat_sync,
    chat_by_position,
    chat_imported_before,
    chat_of_main,
    chat_by_router,
    text,
    text_sync,
]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


def check(span: Span) -> None:
    assert (span.kind, span.name, span.error) == ("llm", MODEL, None)
    assert (span.input, span.output) == ("hello there", TEXT)
    assert (span.tokens_in, span.tokens_out, span.tokens_cached) == (16, 4, 3)
    assert span.cost_usd is None
    assert span.start_s < span.end_s


GOOD = loopback.Behaviour(text=TEXT, cached_tokens=3)


async def test_a_call_leaves_one_span(way: Way) -> None:
    trace = Trace()
    async with loopback.serve(GOOD) as server:
        with capture.listening(trace):
            assert await way(server) == TEXT
    (span,) = trace.spans
    check(span)
    assert span.ttft_s is None


async def test_outside_of_a_run_a_call_passes(way: Way) -> None:
    trace = Trace()
    async with loopback.serve(GOOD) as server:
        with capture.listening(trace):
            pass
        assert await way(server) == TEXT
    assert trace.spans == []


async def test_a_failed_call_leaves_its_error(way: Way) -> None:
    trace = Trace()
    async with loopback.serve(loopback.Behaviour(script=("500",))) as server:
        with capture.listening(trace), pytest.raises(OpenAIError):
            await way(server)
    (span,) = trace.spans
    assert span.error is not None
    assert "scripted Internal Server Error" in span.error
    assert (span.output, span.tokens_in, span.tokens_out) == ("", None, None)


async def stream(server: Any, **more: Any) -> str:
    chunks = await litellm.acompletion(**ask(server, stream=True, **more))
    assert isinstance(chunks, litellm.CustomStreamWrapper)
    return "".join([text_of(chunk) async for chunk in chunks])


async def stream_sync(server: Any, **more: Any) -> str:
    def call() -> str:
        chunks = litellm.completion(**ask(server, stream=True, **more))
        assert isinstance(chunks, litellm.CustomStreamWrapper)
        return "".join(map(text_of, chunks))

    return await asyncio.to_thread(call)


async def stream_text(server: Any, **more: Any) -> str:
    chunks = await litellm.atext_completion(
        prompt="hello there", **reach(server, stream=True, **more)
    )
    return "".join([text_of(chunk) async for chunk in chunks])


async def stream_text_sync(server: Any, **more: Any) -> str:
    def call() -> str:
        given = reach(server, prompt="hello there", stream=True, **more)
        return "".join(map(text_of, litellm.text_completion(**given)))

    return await asyncio.to_thread(call)


STREAMS: list[Way] = [stream, stream_sync, stream_text, stream_text_sync]
COUNTED = {"stream_options": {"include_usage": True}}


@pytest.fixture(params=STREAMS, ids=lambda way: way.__name__)
def streamed(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


async def test_a_stream_is_heard_to_its_end(streamed: Way) -> None:
    trace = Trace()
    slow = loopback.Behaviour(text=TEXT, cached_tokens=3, chunk_delay_s=0.05)
    async with loopback.serve(slow) as server:
        with capture.listening(trace):
            assert await streamed(server, **COUNTED) == TEXT
    (span,) = trace.spans
    check(span)
    assert span.ttft_s is not None
    assert 0.04 <= span.ttft_s <= span.end_s - span.start_s - 0.1


async def test_a_stream_that_nobody_counted_has_no_count(streamed: Way) -> None:
    trace = Trace()
    async with loopback.serve(GOOD) as server:
        with capture.listening(trace):
            assert await streamed(server) == TEXT
    (span,) = trace.spans
    assert (span.output, span.error) == (TEXT, None)
    assert (span.tokens_in, span.tokens_out, span.tokens_cached) == (None, None, None)


async def test_a_reply_that_nobody_counted_has_no_count() -> None:
    trace = Trace()
    async with loopback.serve(loopback.Behaviour(usage=False)) as server:
        with capture.listening(trace):
            await chat(server, model="openai/gpt-4o-mini")
    (span,) = trace.spans
    assert span.output
    assert (span.tokens_in, span.tokens_out, span.cost_usd) == (None, None, None)


async def test_a_stream_that_breaks_off_leaves_what_came(streamed: Way) -> None:
    trace = Trace()
    async with loopback.serve(loopback.Behaviour(text=TEXT, script=("cut",))) as server:
        with capture.listening(trace), pytest.raises(OpenAIError):
            await streamed(server, **COUNTED)
    (span,) = trace.spans
    assert span.error
    assert span.error != capture.LEFT
    assert TEXT.startswith(span.output)
    assert span.tokens_out is None


async def test_a_stream_that_is_left_ends_where_it_was_left() -> None:
    trace = Trace()
    async with loopback.serve(loopback.Behaviour(script=("drip",))) as server:
        with capture.listening(trace):
            chunks = await litellm.acompletion(**ask(server, stream=True))
            async for chunk in chunks:
                if text_of(chunk):
                    break
            await asyncio.sleep(0.2)
            await chunks.aclose()
    (span,) = trace.spans
    assert span.error == capture.LEFT
    assert span.output.startswith("drip")
    assert span.end_s < trace.now_s() - 0.15


async def test_a_stream_that_is_no_longer_held_may_close() -> None:
    async with loopback.serve(loopback.Behaviour(script=("drip",))) as server:
        with capture.listening(Trace()):
            chunks = await litellm.acompletion(**ask(server, stream=True))
            await anext(chunks)
            (one,) = capture._run.get().open  # type: ignore[union-attr]
            assert all(chunks is not held for held in vars(one).values())


@pytest.mark.parametrize(
    ("way", "fault", "output"),
    [
        (chat, "hang", ""),
        (text, "hang", ""),
        (stream, "drip", "drip"),
        (stream_text, "drip", "drip"),
    ],
)
async def test_a_cancelled_call_leaves_its_span(way: Way, fault: str, output: str) -> None:
    trace = Trace()

    async def run() -> None:
        with capture.listening(trace):
            await way(server)

    async with loopback.serve(loopback.Behaviour(script=(fault,))) as server:
        task = asyncio.create_task(run())
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (span,) = trace.spans
    assert span.error == "cancelled"
    assert span.output.startswith(output)
    assert bool(span.output) == bool(output)
    assert span.tokens_out is None


async def test_a_thread_that_outlives_its_run_asks_no_more() -> None:
    trace = Trace()
    refused: list[Exception] = []

    def work() -> None:
        litellm.completion(**ask(server))
        try:
            litellm.completion(**ask(server))
        except ModelError as error:
            refused.append(error)

    async with loopback.serve(loopback.Behaviour(delay_s=0.4, record=True)) as server:
        with capture.listening(trace):
            thread = threading.Thread(target=contextvars.copy_context().run, args=(work,))
            thread.start()
            await asyncio.sleep(0.2)
        await asyncio.to_thread(thread.join)
        assert len(server.received) == 1
    (span,) = trace.spans
    assert span.error == capture.LEFT
    assert span.end_s - span.start_s < 0.35
    assert "is over" in str(refused[0])


async def test_a_thread_is_heard_with_the_context_and_not_without() -> None:
    trace = Trace()
    async with loopback.serve(GOOD) as server:
        for heard in (False, True):
            with capture.listening(trace):
                run = contextvars.copy_context().run if heard else lambda call: call()
                thread = threading.Thread(
                    target=run, args=(lambda: litellm.completion(**ask(server)),)
                )
                thread.start()
                await asyncio.to_thread(thread.join)
            assert len(trace.spans) == heard


async def test_runs_at_once_do_not_mix(way: Way) -> None:
    async def run(number: int) -> list[Span]:
        trace = Trace()
        with capture.listening(trace):
            for _ in range(2):
                await asyncio.gather(
                    way(server, user=f"{number}"), chat(server, content=f"{number}")
                )
        return trace.spans

    async with loopback.serve(loopback.Behaviour(delay_s=0.02)) as server:
        together = await asyncio.gather(*map(run, range(4)))
    for number, spans in enumerate(together):
        assert sorted(span.input for span in spans) == [f"{number}"] * 2 + ["hello there"] * 2


async def test_a_call_of_the_session_is_written_down_once() -> None:
    trace = Trace()
    async with loopback.serve(GOOD) as server:
        one = ChatClient(ModelSettings(model=MODEL, api_base=server.address))
        with capture.listening(trace):
            await one.complete(Request(prompt="by the session", max_tokens=9), trace)
            await chat(server)
            await asyncio.gather(
                one.complete(Request(prompt="by the session", max_tokens=9), trace), chat(server)
            )
    assert (
        sorted(span.input for span in trace.spans) == ["by the session"] * 2 + ["hello there"] * 2
    )


@pytest.mark.parametrize("way", [chat, chat_sync])
async def test_a_retry_of_litellms_is_a_span(way: Way) -> None:
    trace = Trace()
    async with loopback.serve(loopback.Behaviour(text=TEXT, script=("500", "500"))) as server:
        with capture.listening(trace):
            assert await way(server, num_retries=3) == TEXT
    assert [bool(span.error) for span in trace.spans] == [True, True, False]
    assert all(before.end_s <= after.start_s for before, after in pairwise(trace.spans))


@pytest.mark.parametrize("way", [chat, chat_sync])
async def test_a_fallback_is_a_span_of_its_own_model(way: Way) -> None:
    trace = Trace()
    async with loopback.serve(loopback.Behaviour(text=TEXT, script=("500",))) as server:
        with capture.listening(trace):
            assert await way(server, fallbacks=["openai/other"], num_retries=0) == TEXT
    assert [(span.name, bool(span.error)) for span in trace.spans] == [
        (MODEL, True),
        ("openai/other", False),
    ]


async def test_a_provider_that_asks_another_is_not_counted_beside_it() -> None:
    class Relay(litellm.CustomLLM):  # type: ignore[misc,name-defined]
        def completion(self, *args: Any, **kwargs: Any) -> Any:
            return litellm.completion(**ask(server))

        async def acompletion(self, *args: Any, **kwargs: Any) -> Any:
            return await litellm.acompletion(**ask(server))

    litellm.custom_provider_map = [{"provider": "relay", "custom_handler": Relay()}]
    litellm.utils.custom_llm_setup()
    trace = Trace()
    try:
        async with loopback.serve(GOOD) as server:
            with capture.listening(trace):
                await chat(server, model="relay/x")
                await chat_sync(server, model="relay/x")
    finally:
        litellm.custom_provider_map = []
    assert len(trace.spans) == 2
    for span in trace.spans:
        check(span)


@pytest.mark.parametrize("way", [text, text_sync])
async def test_the_name_is_the_callers(way: Way) -> None:
    trace = Trace()
    async with loopback.serve(GOOD) as server:
        with capture.listening(trace):
            await way(server, model="openai/name")
    assert [span.name for span in trace.spans] == ["openai/name"]


async def test_a_known_model_has_its_price() -> None:
    info = litellm.model_cost["gpt-4o-mini"]
    trace = Trace()
    async with loopback.serve(GOOD) as server:
        with capture.listening(trace):
            await chat(server, model="openai/gpt-4o-mini")
    assert trace.spans[0].cost_usd == pytest.approx(
        13 * info["input_cost_per_token"]
        + 3 * info["cache_read_input_token_cost"]
        + 4 * info["output_cost_per_token"]
    )


async def test_the_key_is_sent_and_never_shown(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    # A server that shows the key it was given, as some do.
    monkeypatch.setattr(
        loopback, "HTTPStatus", lambda _: type("Echo", (), {"phrase": f"bad key {SECRET}"})
    )
    trace = Trace()
    async with loopback.serve(loopback.Behaviour(script=("401",), record=True)) as server:
        with capture.listening(trace), pytest.raises(OpenAIError):
            await way(server)
        assert server.received[0].headers["authorization"] == f"Bearer {SECRET}"
    (span,) = trace.spans
    assert "bad key" in str(span.error)
    assert SECRET not in repr(span)


async def test_a_router_gives_no_model_a_price() -> None:
    model = "hosted_vllm/routed"
    trace = Trace()
    async with loopback.serve(GOOD) as server:
        entry = {"model_name": "m", "litellm_params": reach(server, model=model)}
        router = litellm.Router(model_list=[entry], num_retries=0)
        with capture.listening(trace):
            await router.acompletion(model="m", messages=[{"role": "user", "content": "x"}])
    assert [(span.name, span.cost_usd) for span in trace.spans] == [(model, None)]


@pytest.mark.slow
async def test_messages_and_tool_calls_are_text() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Where?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
            ],
        },
        litellm.Message(
            role="assistant",
            tool_calls=[
                {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
            ],
        ),
        {"role": "tool", "tool_call_id": "1", "content": "Oak"},
    ]
    call = {"id": "2", "type": "function", "function": {"name": "find", "arguments": '{"a": 1}'}}
    trace = Trace()
    with capture.listening(trace):
        await litellm.acompletion(MODEL, messages, mock_response="x", mock_tool_calls=[call])
    (span,) = trace.spans
    assert span.input == "Be brief.\n\nWhere?\n[image_url]\n\nlook{}\n\nOak"
    assert span.output.endswith('find{"a": 1}')
