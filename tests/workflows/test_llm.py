"""Real HTTP against a server on this machine: what goes out, what comes back, and what is written down."""

import asyncio
import importlib.util
import json
import signal
import subprocess
import sys
import traceback
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from workflows import ChatClient
from workflows import ConfigError
from workflows import ModelError
from workflows import ModelSettings
from workflows import ModelTimeout
from workflows import Request
from workflows import ScriptedLLM
from workflows import Trace
from workflows import llm as llm_module

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "loopback.py"

# litellm and what it stands on warn of themselves, and litellm takes a warning that was made an error
# for a failure of the server; kept-alive connections end with the event loop of each test.
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


made: list[ChatClient] = []


async def close_all() -> None:
    """Close what is open on this event loop."""
    for one in made:
        await one.close()
    made.clear()
    await asyncio.sleep(0)


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """litellm loads parts of itself with its first call, which would eat a short time-out."""

    async def call() -> None:
        async with loopback.serve(loopback.Behaviour()) as server:
            for endpoint in ("chat", "completion"):
                await client(server, endpoint=endpoint, timeout_s=60.0).complete(ASK, Trace())
            await close_all()

    asyncio.run(call())


@pytest.fixture(autouse=True)
async def closed() -> AsyncIterator[None]:
    yield
    await close_all()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_module, "FIRST_RETRY_S", 0.001)
    monkeypatch.setattr(llm_module, "LONGEST_RETRY_S", 0.002)


@pytest.fixture(params=["chat", "completion"])
def endpoint(request: pytest.FixtureRequest) -> str:
    return str(request.param)


ASK = Request(prompt="Question: x\nAnswer:", system="Answer.", max_tokens=9, stop=("\n",), seed=5)


def client(server: Any, **settings: Any) -> ChatClient:
    given = {"model": "hosted_vllm/org/name", "api_base": server.address, "timeout_s": 10.0}
    made.append(ChatClient(ModelSettings(**{**given, **settings})))
    return made[-1]


async def test_a_reply_and_its_span(endpoint: str) -> None:
    behaviour = loopback.Behaviour(text="to be or not", cached_tokens=3, record=True)
    async with loopback.serve(behaviour) as server:
        trace = Trace()
        assert await client(server, endpoint=endpoint).complete(ASK, trace) == "to be or not"
        (span,) = trace.spans
        assert (span.kind, span.name, span.attempt, span.error) == (
            "llm",
            "hosted_vllm/org/name",
            1,
            None,
        )
        assert span.input == "Answer.\n\nQuestion: x\nAnswer:"
        assert span.output == "to be or not"
        assert (span.tokens_in, span.tokens_out, span.tokens_cached) == (16, 4, 3)
        assert span.cost_usd is None
        assert span.ttft_s is not None
        assert 0 < span.ttft_s <= span.end_s - span.start_s
        (received,) = server.received
    body = received.body
    assert body["model"] == "org/name"
    assert (body["max_tokens"], body["temperature"], body["seed"]) == (9, 0.0, 5)
    assert body["stop"] == ["\n"]
    assert body["stream"] is True
    if endpoint == "chat":
        assert received.path == "/v1/chat/completions"
        assert body["messages"] == [
            {"role": "system", "content": "Answer."},
            {"role": "user", "content": "Question: x\nAnswer:"},
        ]
    else:
        assert received.path == "/v1/completions"
        assert body["prompt"] == span.input


async def test_what_is_read_again_is_what_the_cache_had(endpoint: str) -> None:
    async with loopback.serve(loopback.Behaviour(record=True)) as server:
        trace = Trace()
        request = replace(ASK, grammar='root ::= "x"')
        one = client(server, endpoint=endpoint, grammar="vllm")
        await one.read(request, " to be", trace)
        (body,) = (received.body for received in server.received)
    assert body["max_tokens"] == 1
    assert body.keys().isdisjoint({"stop", "structured_outputs", "extra_body"})
    if endpoint == "chat":  # where a reply is the assistant's, and no prompt goes on from it
        assert body["messages"][-1]["content"] == ASK.prompt
    else:
        assert body["prompt"] == f"{ASK.text()} to be"
    assert len(trace.spans) == 1


@pytest.mark.parametrize("system", ["Answer.", ""])
async def test_a_salt_stands_before_all_else_and_in_no_span(endpoint: str, system: str) -> None:
    request = replace(ASK, system=system)
    async with loopback.serve(loopback.Behaviour(record=True)) as server:
        plain, trace = client(server, endpoint=endpoint), Trace()
        await plain.salted("a1b2", "prompt").complete(request, trace)
        await plain.complete(request, trace)
        salted, unsalted = (received.body for received in server.received)
    if endpoint == "chat":
        assert salted["messages"][0]["content"] == "a1b2\n" + (system or request.prompt)
        assert salted["messages"][1:] == unsalted["messages"][1:]
        assert not unsalted["messages"][0]["content"].startswith("a1b2")
    else:
        assert salted["prompt"] == f"a1b2\n{unsalted['prompt']}"
    assert [span.input for span in trace.spans] == [request.text()] * 2


async def test_a_salt_beside_the_prompt_leaves_it_as_it_is(endpoint: str) -> None:
    async with loopback.serve(loopback.Behaviour(record=True)) as server:
        plain = client(server, endpoint=endpoint, grammar="vllm")
        request = replace(ASK, grammar='root ::= "x"')
        await plain.salted("a1b2", "cache_salt").complete(request, Trace())
        await plain.complete(request, Trace())
        salted, unsalted = (dict(received.body) for received in server.received)
    assert salted.pop("cache_salt") == "a1b2"
    assert salted == unsalted
    assert salted["structured_outputs"] == {"grammar": 'root ::= "x"'}


async def test_a_salted_client_shares_the_connections_of_the_first(endpoint: str) -> None:
    async with loopback.serve(loopback.Behaviour(record=True)) as server:
        plain = client(server, endpoint=endpoint)
        for salt in ("a", "b", "c"):
            await plain.salted(salt, "prompt").complete(ASK, Trace())
        assert server.open_connections == 1


async def test_what_calls_litellm_itself_gets_the_salt_beside_the_prompt() -> None:
    async with loopback.serve(loopback.Behaviour()) as server:
        plain = client(server)
        beside = plain.salted("a1b2", "cache_salt").litellm_arguments()
        assert beside == {**plain.litellm_arguments(), "extra_body": {"cache_salt": "a1b2"}}
        assert plain.salted("a1b2", "prompt").litellm_arguments() == plain.litellm_arguments()


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "openai/name", "hosted_vllm/org/name"])
async def test_a_completion_is_asked_of_the_completion_endpoint(model: str) -> None:
    async with loopback.serve(loopback.Behaviour(record=True)) as server:
        await client(server, endpoint="completion", model=model).complete(ASK, Trace())
        assert [received.path for received in server.received] == ["/v1/completions"]
        assert server.received[0].body["model"] == model.partition("/")[2]


async def test_the_first_chunk_with_content_counts(endpoint: str) -> None:
    async with loopback.serve(loopback.Behaviour(text="a b c", chunk_delay_s=0.15)) as server:
        trace = Trace()
        await client(server, endpoint=endpoint).complete(ASK, trace)
    (span,) = trace.spans
    assert span.ttft_s is not None
    assert 0.14 <= span.ttft_s < 0.29
    assert span.end_s - span.start_s >= 0.44


async def test_no_usage_is_no_count(endpoint: str) -> None:
    async with loopback.serve(loopback.Behaviour(usage=False)) as server:
        trace = Trace()
        await client(server, endpoint=endpoint, model="openai/gpt-4o-mini").complete(ASK, trace)
    (span,) = trace.spans
    assert span.output
    assert (span.tokens_in, span.tokens_out, span.tokens_cached) == (None, None, None)
    assert span.cost_usd is None


GRAMMAR = 'root ::= "yes"'


@pytest.mark.parametrize(
    ("way", "sent"),
    [
        ("none", {}),
        ("llama.cpp", {"grammar": GRAMMAR}),
        ("vllm", {"structured_outputs": {"grammar": GRAMMAR}}),
    ],
)
@pytest.mark.parametrize("model", ["hosted_vllm/x", "openai/x"])
async def test_a_grammar_goes_out_as_the_server_wants_it(
    endpoint: str, model: str, way: str, sent: dict[str, Any]
) -> None:
    request = Request(prompt="x", max_tokens=9, grammar=GRAMMAR)
    async with loopback.serve(loopback.Behaviour(record=True)) as server:
        one = client(server, endpoint=endpoint, model=model, grammar=way)
        await one.complete(request, Trace())
        await one.complete(ASK, Trace())
        with_grammar, without = (received.body for received in server.received)
    keys = {"grammar", "structured_outputs", "extra_body"}
    assert {key: with_grammar[key] for key in keys & set(with_grammar)} == sent
    assert not keys & set(without)


@pytest.mark.parametrize("offered", [True, False])
async def test_a_schema_goes_out_where_it_is_offered(endpoint: str, offered: bool) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    request = Request(prompt="x", max_tokens=9, json_schema=schema)
    async with loopback.serve(loopback.Behaviour(record=True)) as server:
        await client(server, endpoint=endpoint, json_schema=offered).complete(request, Trace())
        body = server.received[0].body
    if offered:
        assert body["response_format"]["type"] == "json_schema"
        assert body["response_format"]["json_schema"]["schema"] == schema
    else:
        assert "response_format" not in body


@pytest.mark.parametrize(("fault", "output"), [("hang", ""), ("drip", "drip drip")])
async def test_every_try_has_a_time_out_and_a_span(endpoint: str, fault: str, output: str) -> None:
    async with loopback.serve(loopback.Behaviour(script=(fault, fault))) as server:
        trace = Trace()
        one = client(server, endpoint=endpoint, timeout_s=0.3, max_retries=1)
        with pytest.raises(ModelTimeout, match=r"within 0\.3 s") as caught:
            await one.complete(ASK, trace)
        await asyncio.sleep(0.05)
        assert server.open_connections == 0  # or the server would work on for nobody
    assert "timeout_s" in str(caught.value.hint)
    assert [span.attempt for span in trace.spans] == [1, 2]
    for span in trace.spans:
        assert span.error == "no complete reply within 0.3 s"
        assert span.output.startswith(output)
        assert bool(span.output) == bool(output)
        assert (span.ttft_s is None) == (not output)
        assert span.tokens_out is None
        assert 0.29 <= span.end_s - span.start_s < 1.0


@pytest.mark.parametrize("fault", ["500", "502", "503", "429", "408", "cut"])
async def test_a_passing_fault_is_tried_again(endpoint: str, fault: str) -> None:
    async with loopback.serve(loopback.Behaviour(text="well then", script=(fault,))) as server:
        trace = Trace()
        assert await client(server, endpoint=endpoint).complete(ASK, trace) == "well then"
    failed, good = trace.spans
    assert (failed.attempt, good.attempt) == (1, 2)
    assert failed.error
    assert failed.error != "cancelled"
    assert failed.tokens_out is None
    assert good.error is None
    assert (good.tokens_in, good.tokens_out) == (16, 2)


@pytest.mark.parametrize("retries", [0, 2])
async def test_tries_end(endpoint: str, retries: int) -> None:
    async with loopback.serve(loopback.Behaviour(script=("500",) * 9)) as server:
        trace = Trace()
        with pytest.raises(ModelError, match="scripted Internal Server Error") as caught:
            await client(server, endpoint=endpoint, max_retries=retries).complete(ASK, trace)
        assert server.address in str(caught.value)
    assert not isinstance(caught.value, ModelTimeout)
    assert [span.attempt for span in trace.spans] == list(range(1, retries + 2))


@pytest.mark.parametrize("fault", ["400", "401", "404", "422"])
async def test_our_own_mistake_is_not_tried_again(endpoint: str, fault: str) -> None:
    async with loopback.serve(loopback.Behaviour(script=(fault,))) as server:
        trace = Trace()
        with pytest.raises(ModelError, match="scripted"):
            await client(server, endpoint=endpoint).complete(ASK, trace)
    (span,) = trace.spans
    assert span.error is not None
    assert "scripted" in span.error


async def test_a_server_that_is_not_there(endpoint: str) -> None:
    async with loopback.serve(loopback.Behaviour()) as server:
        pass
    trace = Trace()
    with pytest.raises(ModelError, match=server.address):
        await client(server, endpoint=endpoint, max_retries=1).complete(ASK, trace)
    assert [bool(span.error) for span in trace.spans] == [True, True]


async def test_a_cancelled_call_leaves_its_span(endpoint: str) -> None:
    async with loopback.serve(loopback.Behaviour(script=("drip",))) as server:
        trace = Trace()
        call = asyncio.create_task(client(server, endpoint=endpoint).complete(ASK, trace))
        await asyncio.sleep(0.3)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.sleep(0.05)
        assert server.open_connections == 0
    (span,) = trace.spans
    assert span.error == "cancelled"
    assert span.output.startswith("drip drip")


async def test_connections_are_kept_for_the_next_call(endpoint: str) -> None:
    async with loopback.serve(loopback.Behaviour()) as server:
        one = client(server, endpoint=endpoint)
        for _ in range(5):
            await one.complete(ASK, Trace())
        assert server.open_connections == 1


def test_a_client_serves_one_event_loop_after_another(endpoint: str) -> None:
    settings: dict[str, Any] = {}

    async def once() -> str:
        async with loopback.serve(loopback.Behaviour(text="yes"), port=settings["port"]) as server:
            one = settings.setdefault("client", client(server, endpoint=endpoint))
            settings["port"] = int(server.address.rpartition(":")[2].partition("/")[0])
            try:
                return str(await one.complete(ASK, Trace()))
            finally:
                made.append(one)
                await close_all()

    settings["port"] = 0
    assert [asyncio.run(once()) for _ in range(2)] == ["yes", "yes"]


SECRET = "sk-very-secret-4711"


@pytest.mark.parametrize("fault", ["200", "401", "500"])
async def test_the_key_is_sent_and_never_shown(
    endpoint: str, fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VILLAGE_KEY", SECRET)
    # A server that shows the key it was given, as some do.
    monkeypatch.setattr(
        loopback, "HTTPStatus", lambda _: type("Echo", (), {"phrase": f"bad key {SECRET}"})
    )
    behaviour = loopback.Behaviour(record=True, script=(fault,))
    async with loopback.serve(behaviour) as server:
        trace = Trace()
        one = client(server, endpoint=endpoint, api_key_env="VILLAGE_KEY", max_retries=0)
        shown = ""
        if fault == "200":
            await one.complete(ASK, trace)
        else:
            with pytest.raises(ModelError, match="bad key") as caught:
                await one.complete(ASK, trace)
            shown = "".join(traceback.format_exception(caught.value))
        assert server.received[0].headers["authorization"] == f"Bearer {SECRET}"
    assert SECRET not in shown
    assert SECRET not in repr(trace.spans)
    assert SECRET not in caplog.text


def test_a_missing_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VILLAGE_KEY", raising=False)
    with pytest.raises(ConfigError, match="VILLAGE_KEY") as caught:
        ChatClient(ModelSettings(model="hosted_vllm/x", api_key_env="VILLAGE_KEY"))
    assert caught.value.hint == "export VILLAGE_KEY=…"


async def test_a_known_model_has_its_price(endpoint: str) -> None:
    import litellm

    info = litellm.model_cost["gpt-4o-mini"]
    async with loopback.serve(loopback.Behaviour(text="a b c", cached_tokens=6)) as server:
        trace = Trace()
        await client(server, endpoint=endpoint, model="openai/gpt-4o-mini").complete(ASK, trace)
    assert trace.spans[0].cost_usd == pytest.approx(
        10 * info["input_cost_per_token"]
        + 6 * info["cache_read_input_token_cost"]
        + 3 * info["output_cost_per_token"]
    )


def test_prices_of_an_unknown_model_are_none() -> None:
    assert llm_module.prices(ModelSettings(model="hosted_vllm/nobody-knows-it")) is None


async def test_scripted_replies_are_cut_like_a_servers() -> None:
    llm = ScriptedLLM(["one two three", "one\ntwo"])
    trace = Trace()
    assert await llm.complete(Request(prompt="a b", max_tokens=2), trace) == "one two"
    assert await llm.complete(Request(prompt="x", max_tokens=9, stop=("\n",)), trace) == "one"
    assert [(s.tokens_in, s.tokens_out) for s in trace.spans] == [(2, 2), (1, 1)]
    with pytest.raises(ModelError, match="no reply left"):
        await llm.complete(Request(prompt="x", max_tokens=9), trace)
    assert trace.spans[2].error is not None


def test_the_server_runs_as_a_process_of_its_own() -> None:
    command = [sys.executable, str(SCRIPT), "--text", "hello there", "--script", "500"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            api_base = json.loads(process.stdout.readline())["api_base"]
            call = urllib.request.Request(
                f"{api_base}/chat/completions", data=b"{}", headers={"Connection": "close"}
            )
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(call, timeout=10)
            caught.value.close()
            with urllib.request.urlopen(call, timeout=10) as reply:
                content = json.load(reply)
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert content["choices"][0]["message"]["content"] == "hello there"
    assert content["usage"]["completion_tokens"] == 2


def test_the_server_explains_itself() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, check=True
    )
    assert "--chunk-delay-s" in done.stdout
    refused = subprocess.run(
        [sys.executable, str(SCRIPT), "--script", "nonsense"], capture_output=True, text=True
    )
    assert refused.returncode == 2
    assert "neither" in refused.stderr or "none of" in refused.stderr
