"""The API as clients see it: OpenAI's own, curl and Prometheus' parser, against a `tuner serve` that runs."""

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import openai
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as older_text

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
WORDS = 7
"""Of the loopback server's reply, which are its tokens; it takes every prompt for 16."""

ASKED = [{"role": "user", "content": "What is six times seven?"}]
BODY = {"model": "best", "messages": ASKED}


def client(served):
    return client_at(served.base_url)


def client_at(base_url):
    return openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)


def samples(served, **headers):
    return samples_at(served.base_url, **headers)


def samples_at(base_url, **headers):
    """(name, labels less those that all have) to value."""
    reply = httpx.get(f"{base_url.removesuffix('/v1')}/metrics", headers={**OPENMETRICS, **headers})
    assert reply.status_code == 200
    found = {}
    for family in openmetrics(reply.text):
        for sample in family.samples:
            labels = {k: v for k, v in sample.labels.items() if k not in ("config", "model")}
            found[sample.name, *sorted(labels.items())] = sample.value
    return found


def until(check, seconds=10.0):
    """Wait for what is about to be so."""
    ends = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_openais_client_gets_an_answer_with_all_tokens(served):
    with client(served) as ours:
        reply = ours.chat.completions.create(model="best", messages=ASKED, temperature=0.3, seed=4)
    (choice,) = reply.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "forty-two")
    assert choice.finish_reason == "stop"
    assert reply.usage is not None
    calls = reply.usage.prompt_tokens // 16
    assert calls >= 1
    assert reply.usage.completion_tokens == WORDS * calls
    assert reply.usage.total_tokens == (16 + WORDS) * calls


async def test_openais_client_gets_an_answer_asynchronously(served):
    async with openai.AsyncOpenAI(base_url=served.base_url, api_key="none") as ours:
        replies = await asyncio.gather(
            *(ours.chat.completions.create(model="best", messages=ASKED) for _ in range(4))
        )
    assert [reply.choices[0].message.content for reply in replies] == ["forty-two"] * 4
    assert len({reply.id for reply in replies}) == 4


def read_stream(stream):
    """The reasoning, the content, how it ended, and the usage of a stream."""
    chunks = list(stream)
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    reasoning = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    content = "".join(delta.content or "" for delta in deltas)
    (finish,) = [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason]
    return reasoning, content, finish, chunks[-1].usage


def test_a_stream_shows_what_the_agent_does_then_its_answer(serve_here, serve_model):
    text = "search[Anna]"
    params = {"max_steps": 2, "thoughts": False, "at_budget": "answer"}
    with (
        serve_model("--text", text) as model,
        serve_here(model, workflow="react", params=params) as base_url,
        client_at(base_url) as ours,
    ):
        stream = ours.chat.completions.create(
            model="best", messages=ASKED, stream=True, stream_options={"include_usage": True}
        )
        reasoning, _, finish, usage = read_stream(stream)
    assert f"{text}\nsearch[Anna]: Anna is a smith." in reasoning
    assert finish == "stop"
    assert usage.prompt_tokens == 16 * usage.completion_tokens > 16


async def test_an_asynchronous_stream_ends_with_done(served):
    async with openai.AsyncOpenAI(base_url=served.base_url, api_key="none") as ours:
        stream = await ours.chat.completions.create(model="best", messages=ASKED, stream=True)
        content = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    assert "".join(content) == "forty-two"
    whole = httpx.post(f"{served.base_url}/chat/completions", json={**BODY, "stream": True})
    assert whole.headers["content-type"].startswith("text/event-stream")
    events = [line for line in whole.text.splitlines() if line]
    assert events[-1] == "data: [DONE]"
    assert all(json.loads(event.removeprefix("data: ")) for event in events[:-1])
    assert '"usage"' not in whole.text


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_gets_an_answer(served):
    command = ["curl", "-s", "--max-time", "20", f"{served.base_url}/chat/completions", "-H", "Content-Type: application/json", "-d", json.dumps(BODY)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["choices"][0]["message"]["content"] == "forty-two"


def test_models_and_health(served):
    with client(served) as ours:
        assert [model.id for model in ours.models.list()] == ["best"]
        assert ours.models.retrieve("best").owned_by == "tuner"
        with pytest.raises(openai.NotFoundError, match="served here: 'best'"):
            ours.models.retrieve("gpt-4o")
    assert httpx.get(f"{served.root}/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("status", "code", "param", "changes"),
    [
        (404, "model_not_found", "model", {"model": "gpt-4o"}),
        (400, None, "model", {"model": None}),
        (400, None, "messages", {"messages": []}),
        (400, None, "messages", {"messages": [{"role": "user", "content": " "}]}),
        (400, None, "messages", {"messages": [{"role": "assistant", "content": "Hello."}]}),
        (400, "unsupported_value", "messages", {"messages": [*ASKED, *ASKED]}),
        (400, "unsupported_value", "messages", {"messages": [{"role": "system", "content": "Be brief."}, *ASKED]}),
        (400, "unsupported_value", "messages", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
        (400, "unsupported_parameter", "n", {"n": 2}),
        (400, "unsupported_parameter", "tools", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        (400, "unsupported_parameter", "response_format", {"response_format": {"type": "json_object"}}),
        (400, "unsupported_parameter", "logprobs", {"logprobs": True}),
        (400, "unsupported_parameter", "stop", {"stop": ["."]}),
        (400, "unsupported_parameter", "magic", {"magic": 1}),
        (400, None, "seed", {"seed": "x"}),
        (400, None, "stream", {"stream": 1}),
    ],
)  # fmt: skip
def test_what_would_be_left_out_is_refused_by_name(served, status, code, param, changes):
    reply = httpx.post(f"{served.base_url}/chat/completions", json={**BODY, **changes})
    assert reply.status_code == status
    error = reply.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)


def test_what_has_no_effect_on_a_tuned_agent_is_let_through(served):
    harmless = {"temperature": 1.3, "max_tokens": 5, "top_p": 0.2, "n": 1, "user": "me", "tools": None, "tool_choice": "none", "response_format": {"type": "text"}}  # fmt: skip
    content = [{"type": "text", "text": "What is six"}, {"type": "text", "text": "times seven?"}]
    body = {**BODY, **harmless, "messages": [{"role": "user", "content": content}]}
    assert httpx.post(f"{served.base_url}/chat/completions", json=body).status_code == 200


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (400, {"content": b"{", "headers": {"Content-Type": "application/json"}}),
        (400, {"json": [1]}),
        (400, {"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}}),
        (415, {"content": json.dumps(BODY).encode(), "headers": {"Content-Type": "text/plain"}}),
        (403, {"json": BODY, "headers": {"Host": "evil.example"}}),
    ],
)
def test_what_is_no_request_is_refused_in_openais_shape(served, status, request_):
    reply = httpx.post(f"{served.base_url}/chat/completions", **request_)
    assert reply.status_code == status
    assert reply.json()["error"]["message"]


def test_unknown_paths_and_methods_are_refused_in_openais_shape(served):
    unknown = httpx.get(f"{served.base_url}/embeddings")
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "invalid_request_error")
    assert httpx.get(f"{served.base_url}/chat/completions").status_code == 405


def test_metrics_count_what_was_asked_and_are_valid(served):
    before = samples(served)
    httpx.post(f"{served.base_url}/chat/completions", json=BODY)
    httpx.post(f"{served.base_url}/chat/completions", json={**BODY, "n": 2})
    after = samples(served)

    def more(*key):
        return after.get(key, 0) - before.get(key, 0)

    assert more("tuner_requests_total", ("outcome", "answered")) == 1
    assert more("tuner_request_duration_seconds_count") == 1
    assert more("tuner_requests_refused_total", ("reason", "unsupported_parameter")) == 1
    calls = more("tuner_model_calls_total", ("outcome", "ok"))
    assert calls >= 1
    assert more("tuner_tokens_total", ("direction", "input")) == 16 * calls
    assert more("tuner_tokens_total", ("direction", "output")) == WORDS * calls
    assert after["tuner_requests_in_flight",] == after["tuner_requests_waiting",] == 0
    assert not any("energy" in name for name, *_ in after)  # nothing is metered, which is not 0 J
    text = httpx.get(f"{served.root}/metrics").text
    (info,) = [f for f in older_text(text) if f.name == "tuner_agent_info"]
    labels = info.samples[0].labels
    assert (labels["study"], labels["trial"], labels["model"]) == ("small-study", "3", "small")


@pytest.fixture(scope="module")
def strict(tmp_path_factory, request):
    """An agent that takes long, of whom little may be asked, and only with the key."""
    from .conftest import serving

    serve_model = request.getfixturevalue("serve_model")
    with (
        serve_model("--delay-s", "1") as model,
        serving(
            tmp_path_factory.mktemp("strict"), model, "--concurrency", "1", "--queue", "1", "--timeout-s", "2.5",
            "--max-body-bytes", "500", "--api-key-env", "THE_KEY", workflow="direct",
        ) as served,
    ):  # fmt: skip
        yield served


KEY = {"Authorization": "Bearer sk-right"}


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/best", "/metrics"])
@pytest.mark.parametrize("given", [{}, {"Authorization": "Bearer sk-wrong"}, {"Authorization": "Basic sk-right"}, {"Authorization": "Bearer schlüssel".encode()}])  # fmt: skip
def test_without_the_key_nothing_is_told(strict, path, given):
    reply = httpx.get(f"{strict.root}{path}", headers=given)
    assert reply.status_code == 401
    assert reply.json()["error"]["code"] == "invalid_api_key"
    assert "sk-right" not in reply.text


@pytest.mark.slow
def test_the_key_opens_and_health_needs_none(strict):
    with pytest.raises(openai.AuthenticationError), client(strict) as ours:
        ours.chat.completions.create(model="best", messages=ASKED)
    with openai.OpenAI(base_url=strict.base_url, api_key="sk-right") as ours:
        assert ours.chat.completions.create(model="best", messages=ASKED).choices
    assert httpx.get(f"{strict.root}/healthz").status_code == 200


def test_a_large_body_is_refused(strict):
    body = {**BODY, "messages": [{"role": "user", "content": "x" * 600}]}
    reply = httpx.post(f"{strict.base_url}/chat/completions", json=body, headers=KEY)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")


@pytest.mark.slow
def test_who_comes_when_the_queue_is_full_is_told_to_come_back(strict):
    def ask(number):
        time.sleep(number / 10)
        body = {**BODY, "stream": number == 1}
        return httpx.post(f"{strict.base_url}/chat/completions", json=body, headers=KEY, timeout=20)

    with ThreadPoolExecutor(4) as threads:
        replies = list(threads.map(ask, range(4)))
    assert [reply.status_code for reply in replies] == [200, 200, 429, 429]
    assert int(replies[2].headers["retry-after"]) >= 1
    error = replies[2].json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "queue_full")
    assert replies[1].text.endswith("data: [DONE]\n\n")
    assert samples(strict, **KEY)["tuner_requests_refused_total", ("reason", "queue_full")] == 2


@pytest.mark.slow
def test_an_agent_that_takes_too_long_is_stopped(serve_here, serve_model):
    with serve_model("--delay-s", "5") as model, serve_here(model, timeout_s=0.5) as base_url:
        with client_at(base_url) as ours:
            with pytest.raises(openai.InternalServerError) as late:
                ours.chat.completions.create(model="best", messages=ASKED)
            assert (late.value.status_code, late.value.code) == (504, "timeout")
            with pytest.raises(openai.APIError, match="no answer within"):
                list(ours.chat.completions.create(model="best", messages=ASKED, stream=True))
        found = samples_at(base_url)
        assert found["tuner_requests_total", ("outcome", "timed_out")] == 2
        assert found["tuner_requests_in_flight",] == 0


@pytest.mark.slow
def test_a_client_that_leaves_ends_its_run(serve_here, serve_model):
    with serve_model("--delay-s", "3") as model, serve_here(model, concurrency=1) as base_url:
        port = int(base_url.removesuffix("/v1").rpartition(":")[-1])
        for number, body in enumerate((BODY, {**BODY, "stream": True}), start=1):
            content = json.dumps(body)
            head = (
                "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
            )
            with socket.create_connection(("127.0.0.1", port)) as leaving:
                leaving.sendall((head + content).encode())
                until(lambda: samples_at(base_url)["tuner_requests_in_flight",] == 1)
            until(lambda: samples_at(base_url)["tuner_requests_in_flight",] == 0, 2)
            found = samples_at(base_url)
            assert found["tuner_requests_total", ("outcome", "cancelled")] == number
        reply = httpx.post(f"{base_url}/chat/completions", json=BODY, timeout=20)
        assert reply.status_code == 200


def test_a_client_that_leaves_in_the_middle_of_its_request_is_no_defect(
    serve_here, serve_model, caplog
):
    with serve_model() as model, serve_here(model) as base_url:
        port = int(base_url.removesuffix("/v1").rpartition(":")[-1])
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        with socket.create_connection(("127.0.0.1", port)) as leaving:
            leaving.sendall(head.encode())
            time.sleep(0.2)
        until(
            lambda: (
                samples_at(base_url).get(
                    ("tuner_requests_refused_total", ("reason", "client_left"))
                )
                == 1
            )
        )
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_model_that_fails_is_told_without_its_address(serve_here, serve_model, caplog):
    with serve_model("--script", "500", "500") as model, serve_here(model) as base_url:
        with client_at(base_url) as ours:
            with pytest.raises(openai.InternalServerError) as failed:
                ours.chat.completions.create(model="best", messages=ASKED)
            assert (failed.value.status_code, failed.value.code) == (502, "model_error")
            assert model.removesuffix("/v1").removeprefix("http://") not in str(failed.value)
            with pytest.raises(openai.APIError, match="no usable reply"):
                list(ours.chat.completions.create(model="best", messages=ASKED, stream=True))
        found = samples_at(base_url)
        assert found["tuner_requests_total", ("outcome", "failed")] == 2
        assert found["tuner_model_calls_total", ("outcome", "failed")] == 2
    assert any("no answer: " in text and "scripted" in text for text in caplog.messages)


def test_concurrent_calls_that_fail_are_one_failure(serve_here, serve_model):
    params = {"samples": 3, "temperature": 0.5}
    with (
        serve_model("--script", *["500"] * 3) as model,
        serve_here(model, workflow="self_consistency", params=params) as base_url,
    ):
        reply = httpx.post(f"{base_url}/chat/completions", json=BODY, timeout=20)
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "model_error")


def test_a_tool_that_the_model_made_up_is_no_series_of_its_own(serve_here, serve_model):
    params = {"max_steps": 1, "thoughts": False}
    with (
        serve_model("--text", "magic[Anna]") as model,
        serve_here(model, workflow="react", params=params) as base_url,
    ):
        assert httpx.post(f"{base_url}/chat/completions", json=BODY).status_code == 200
        tools = {key[2][1] for key in samples_at(base_url) if key[0] == "tuner_tool_calls_total"}
    assert tools == {"unknown"}


def test_a_callers_trace_goes_on(serve_here, serve_model, monkeypatch):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    with serve_model() as model, serve_here(model) as base_url:
        httpx.post(f"{base_url}/chat/completions", json=BODY, headers=headers)
    provider.shutdown()
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == ["chat openai/loopback", "invoke_agent cot"]
    assert {f"{span.context.trace_id:032x}" for span in spans} == {headers["traceparent"][3:35]}


def test_health_says_when_the_model_is_gone(serve_here, serve_model):
    with ExitStack() as stack:
        model = stack.enter_context(serve_model())
        leaving = stack.pop_all()
        with serve_here(model) as base_url:
            leaving.close()
            url = f"{base_url.removesuffix('/v1')}/healthz"
            until(lambda: httpx.get(url).status_code == 503)
            assert httpx.get(url).json()["status"] == "unavailable"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_answers_what_is_under_way_and_takes_nothing_on(serve, serve_model, number):
    with serve_model("--delay-s", "1.5") as model, serve(model, workflow="direct") as served:
        with ThreadPoolExecutor(1) as thread:
            asked = thread.submit(httpx.post, f"{served.base_url}/chat/completions", json=BODY, timeout=20)  # fmt: skip
            until(lambda: samples(served)["tuner_requests_in_flight",] == 1)
            served.process.send_signal(number)
            time.sleep(0.3)
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{served.root}/healthz", timeout=1)
            assert asked.result().status_code == 200
        assert served.process.wait(20) == 0
    assert served.said[-1] == "stopped\n"
    assert "Traceback" not in "".join(served.said)


@pytest.mark.slow
def test_what_is_not_done_when_the_grace_ends_is_broken_off(serve, serve_model):
    with (
        serve_model("--script", "hang") as model,
        serve(model, "--grace-s", "1") as served,
        ThreadPoolExecutor(1) as thread,
    ):
        url = f"{served.base_url}/chat/completions"
        asked = thread.submit(httpx.post, url, json=BODY, timeout=20)
        until(lambda: samples(served)["tuner_requests_in_flight",] == 1)
        began = time.monotonic()
        served.process.terminate()
        assert served.process.wait(20) == 0
        assert time.monotonic() - began < 8
        assert asked.exception() is not None or asked.result().status_code >= 500
