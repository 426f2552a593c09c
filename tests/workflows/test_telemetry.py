"""What OpenTelemetry is told of a run: with the SDK in memory, and over HTTP to a receiver of the test's."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import error_attributes
from opentelemetry.semconv.attributes import http_attributes
from opentelemetry.semconv.attributes import server_attributes
from opentelemetry.trace import SpanKind
from opentelemetry.trace import StatusCode
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import workflows
from workflows import AgentConfig
from workflows import AgentPack
from workflows import ModelError
from workflows import ModelSettings
from workflows import ScriptedLLM
from workflows.config import AgentFile
from workflows.config import ExportedModel
from workflows.config import dump_agent_file
from workflows.telemetry import continuing

ROOT = Path(__file__).resolve().parents[2]
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
REPLIES = ["I look.\nAction 1: search[Anna]", "I know.\nAction 2: finish[Oak]"]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """An application's own provider, in memory."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    monkeypatch.delenv(CAPTURE, raising=False)
    yield exporter
    provider.shutdown()


def agent(pack: AgentPack, replies: Any = REPLIES) -> workflows.Agent:
    config = AgentConfig(workflow="react", model="m", params={"max_steps": 3})
    return workflows.build(config, llms={"m": ScriptedLLM(replies)}, pack=pack)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_run_is_one_span_with_each_call_below(
    told: InMemorySpanExporter, pack: AgentPack
) -> None:
    outcome = await agent(pack).run("Where is Anna?")
    *calls, root = told.get_finished_spans()
    assert [span.name for span in calls] == [
        "chat scripted",
        "execute_tool search",
        "chat scripted",
    ]
    assert (root.name, root.kind, root.parent) == ("invoke_agent react", SpanKind.INTERNAL, None)
    assert attributes(root)["gen_ai.operation.name"] == "invoke_agent"
    assert attributes(root)["gen_ai.agent.name"] == "react"
    for call, span in zip(calls, outcome.spans, strict=True):
        assert call.parent is not None
        assert call.parent.span_id == root.context.span_id
        assert root.start_time <= call.start_time <= call.end_time <= root.end_time  # type: ignore[operator]
        took_s = (call.end_time - call.start_time) / 1e9  # type: ignore[operator]
        assert took_s == pytest.approx(span.end_s - span.start_s, abs=1e-6)
    first = attributes(calls[0])
    assert calls[0].kind == SpanKind.CLIENT
    assert first["gen_ai.usage.input_tokens"] == outcome.spans[0].tokens_in
    assert first["gen_ai.usage.output_tokens"] == outcome.spans[0].tokens_out
    assert attributes(calls[1])["gen_ai.tool.name"] == "search"
    assert all(span.status.status_code == StatusCode.UNSET for span in (*calls, root))


async def test_every_name_is_one_of_the_conventions(
    told: InMemorySpanExporter, pack: AgentPack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CAPTURE, "SPAN_ONLY")
    with pytest.raises(ModelError):
        await agent(pack, [REPLIES[0], ModelError("gone")]).run("Where is Anna?")
    modules = (gen_ai_attributes, error_attributes, server_attributes, http_attributes)
    known = {value for module in modules for value in vars(module).values() if isinstance(value, str)}  # fmt: skip
    given = {name for span in told.get_finished_spans() for name in attributes(span)}
    assert given - known == {"gen_ai.agent.version"} - known
    operations = {value.value for value in gen_ai_attributes.GenAiOperationNameValues}
    for span in told.get_finished_spans():
        assert attributes(span)["gen_ai.operation.name"] in operations


async def test_contents_are_told_only_where_they_are_asked_for(
    told: InMemorySpanExporter, pack: AgentPack, monkeypatch: pytest.MonkeyPatch
) -> None:
    await agent(pack).run("Where is Anna?")
    silent = [json.dumps(attributes(span)) for span in told.get_finished_spans()]
    assert not any("Anna" in text or "Oak" in text for text in silent)
    told.clear()
    monkeypatch.setenv(CAPTURE, "true")
    await agent(pack).run("Where is Anna?")
    chat, tool, _, root = map(attributes, told.get_finished_spans())
    (asked,) = json.loads(root["gen_ai.input.messages"])
    assert asked == {"role": "user", "parts": [{"type": "text", "content": "Where is Anna?"}]}
    assert json.loads(root["gen_ai.output.messages"])[0]["parts"][0]["content"] == "Oak"
    assert "search[Anna]" in chat["gen_ai.output.messages"]
    assert tool["gen_ai.tool.call.arguments"] == "Anna"


async def test_a_run_that_fails_says_so_and_nothing_of_what_was_asked(
    told: InMemorySpanExporter, pack: AgentPack
) -> None:
    with pytest.raises(ModelError):
        await agent(pack, [ModelError("no Anna here")]).run("Where is Anna?")
    call, root = told.get_finished_spans()
    assert attributes(root)["error.type"] == "ModelError"
    assert attributes(call)["error.type"] == "_OTHER"
    for span in (call, root):
        assert span.status.status_code == StatusCode.ERROR
        assert "Anna" not in f"{span.status.description}{span.events}"


async def test_a_callers_trace_goes_on(told: InMemorySpanExporter, pack: AgentPack) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with continuing({"traceparent": parent}):
        await agent(pack).run("Where is Anna?")
    assert {f"{span.context.trace_id:032x}" for span in told.get_finished_spans()} == {
        "0af7651916cd43dd8448eb211c80319c"
    }


SCRIPT = """\
import asyncio, sys, workflows
agent = workflows.load("best.yaml")
async def main():
    print((await agent.run("What?")).answer)
    await agent.close()
asyncio.run(main())
print(sorted(name for name in sys.modules if name.startswith("opentelemetry.sdk"))[:1])
"""


def run_exported(
    folder: Path, api_base: str, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """`workflows.load(…).run` in a process of its own, on a completion endpoint."""
    settings = ModelSettings(model="hosted_vllm/loopback", api_base=api_base, endpoint="completion")
    file = AgentFile(
        format_version=1,
        config=AgentConfig(workflow="direct", model="m"),
        models={"m": ExportedModel(settings=settings)},
        pack=AgentPack(instruction="Answer."),
    )
    dump_agent_file(file, folder / "best.yaml")
    usual = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=folder, env={**usual, **environment}, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip


@pytest.fixture
def api_base() -> Iterator[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "loopback.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["api_base"]
        process.terminate()


@pytest.mark.slow
def test_spans_reach_a_receiver_over_http(tmp_path: Path, api_base: str) -> None:
    received: list[ExportTraceServiceRequest] = []

    async def receive(request: Request) -> Response:
        received.append(ExportTraceServiceRequest.FromString(await request.body()))
        return Response(media_type="application/x-protobuf")

    app = Starlette(routes=[Route("/v1/traces", receive, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        endpoint = f"http://127.0.0.1:{port}"
        done = run_exported(
            tmp_path, api_base,
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_EXPORTER_OTLP_COMPRESSION="none", OTEL_SERVICE_NAME="ours",
        )  # fmt: skip
    finally:
        server.should_exit = True
        thread.join()
    assert done.stderr == ""
    (resource,) = [each for request in received for each in request.resource_spans]
    named = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert named["service.name"] == "ours"
    spans = {span.name: span for scope in resource.scope_spans for span in scope.spans}
    assert spans.keys() == {"invoke_agent direct", "text_completion hosted_vllm/loopback"}
    call = spans["text_completion hosted_vllm/loopback"]
    values = {each.key: each.value for each in call.attributes}
    assert values["gen_ai.provider.name"].string_value == "hosted_vllm"
    assert values["gen_ai.usage.input_tokens"].int_value == 16
    assert values["server.address"].string_value == "127.0.0.1"
    assert values["server.port"].int_value == int(api_base.split(":")[2].split("/")[0])


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"}])  # fmt: skip
def test_without_an_endpoint_nothing_is_imported(
    tmp_path: Path, api_base: str, environment: dict[str, str]
) -> None:
    assert run_exported(tmp_path, api_base, **environment).stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_a_protocol_that_is_not_spoken_is_told_and_the_run_goes_on(
    tmp_path: Path, api_base: str
) -> None:
    done = run_exported(
        tmp_path, api_base, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_EXPORTER_OTLP_PROTOCOL="grpc"
    )  # fmt: skip
    assert "no traces are sent: OTEL_EXPORTER_OTLP_PROTOCOL is grpc" in done.stderr
    assert done.stdout.startswith("Reasoning")
