"""Spans of an agent's runs for OpenTelemetry, by its semantic conventions for generative AI.

Apart from `trace`, whose spans are this project's own measurements: here they are told to whoever collects traces.
Nothing is imported unless OTEL_EXPORTER_OTLP_ENDPOINT (or …_TRACES_ENDPOINT) says where to, or the application has
set a tracer provider of its own, which then is used. What was asked and answered is left out unless
OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT asks for it.
"""

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from workflows.config import ModelSettings
from workflows.trace import Span
from workflows.trace import Trace
from workflows.trace import keepable

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
CAPTURING = frozenset({"true", "span_only", "span_and_event"})
"""Values of CAPTURE, in small letters, that ask for contents on spans."""

PROVIDERS: Mapping[str, str] = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""What litellm's names of providers are called in the conventions; others have the same name there, or none."""

_log = logging.getLogger(__name__)


class Telling:
    """One run while it is told of."""

    def __init__(
        self, tracer: Any, root: Any, trace: Trace, settings: Mapping[str, ModelSettings]
    ) -> None:
        from opentelemetry.trace import set_span_in_context

        self._tracer = tracer
        self._root = root
        self._parent = set_span_in_context(root)
        self._settings = settings
        self._captures = _captures()
        # Spans have monotonic times: they are brought to the wall clock as it is now.
        self._origin_ns = time.time_ns() - int(trace.now_s() * 1e9)
        trace.listeners.append(self._tell)

    def asked(self, question: str) -> None:
        """The question, where contents are wanted."""
        if self._captures:
            self._root.set_attribute("gen_ai.input.messages", _messages("user", question))

    def answered(self, answer: str) -> None:
        """The answer, where contents are wanted."""
        if self._captures:
            self._root.set_attribute("gen_ai.output.messages", _messages("assistant", answer))

    def _tell(self, span: Span) -> None:
        attributes = self._of_call(span) if span.kind == "llm" else self._of_tool(span)
        from opentelemetry.trace import SpanKind

        told = self._tracer.start_span(
            f"{attributes['gen_ai.operation.name']} {span.name}".rstrip(),
            context=self._parent,
            kind=SpanKind.CLIENT if span.kind == "llm" else SpanKind.INTERNAL,
            attributes={key: value for key, value in attributes.items() if value is not None},
            start_time=self._origin_ns + int(span.start_s * 1e9),
        )
        if span.error is not None:
            _fail(told, _kind_of(span.error), span.error if self._captures else None)
        told.end(self._origin_ns + int(span.end_s * 1e9))

    def _of_call(self, span: Span) -> dict[str, Any]:
        settings = self._settings.get(span.name)
        address = urlsplit(settings.api_base or "") if settings is not None else urlsplit("")
        completion = settings is not None and settings.endpoint == "completion"
        provider, slash, _ = span.name.partition("/")
        attributes = {
            "gen_ai.operation.name": "text_completion" if completion else "chat",
            "gen_ai.provider.name": PROVIDERS.get(provider, provider) if slash else "_OTHER",
            "gen_ai.request.model": span.name,
            "gen_ai.request.seed": span.seed,
            "gen_ai.usage.input_tokens": span.tokens_in,
            "gen_ai.usage.output_tokens": span.tokens_out,
            "gen_ai.usage.cache_read.input_tokens": span.tokens_cached,
            "gen_ai.response.time_to_first_chunk": span.ttft_s,
            "server.address": address.hostname,
            "server.port": address.port,
            "http.request.resend_count": span.attempt - 1 or None,
        }
        if self._captures:
            attributes["gen_ai.input.messages"] = _messages("user", span.input)
            attributes["gen_ai.output.messages"] = _messages("assistant", span.output)
        return attributes

    def _of_tool(self, span: Span) -> dict[str, Any]:
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": span.name,
            "gen_ai.tool.type": "function",
        }
        if self._captures:
            attributes["gen_ai.tool.call.arguments"] = span.input
            attributes["gen_ai.tool.call.result"] = span.output
        return attributes


class _Silence:
    """Nobody listens."""

    def asked(self, question: str) -> None:
        """Nothing."""

    def answered(self, answer: str) -> None:
        """Nothing."""


_SILENCE = _Silence()


@contextmanager
def telling(
    trace: Trace,
    *,
    name: str,
    version: str | None,
    model: str,
    settings: Mapping[str, ModelSettings],
) -> Iterator[Telling | _Silence]:
    """Within, the run of that trace is told as a span `invoke_agent`, and each of its calls as one below.

    `name` and `version` are the agent's: its workflow, and the hash of its config; `settings` are those of its
    models, by the names that spans have for them.
    """
    tracer = find_tracer()
    if tracer is None:
        yield _SILENCE
        return
    attributes = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": name,
        "gen_ai.agent.version": version,
        "gen_ai.provider.name": "_OTHER",
        "gen_ai.request.model": model,
    }
    with tracer.start_as_current_span(
        f"invoke_agent {name}",
        attributes={key: value for key, value in attributes.items() if value is not None},
        record_exception=False,  # its text may hold what was asked
        set_status_on_exception=False,
    ) as root:
        try:
            yield Telling(tracer, root, trace, settings)
        except BaseException as error:  # however the run ended is told, and goes on
            kind = (
                "cancelled" if isinstance(error, asyncio.CancelledError) else type(error).__name__
            )
            _fail(root, kind, keepable(str(error)) if _captures() else None)
            raise


@contextmanager
def continuing(headers: Mapping[str, str]) -> Iterator[None]:
    """Within, runs belong to the trace that a caller's `traceparent` names."""
    if find_tracer() is None:
        yield
        return
    from opentelemetry import context
    from opentelemetry.propagate import extract

    token = context.attach(extract(headers))
    try:
        yield
    finally:
        context.detach(token)


def find_tracer() -> Any | None:
    """What spans are started with: the application's own, or one of ours where an endpoint is configured; else None."""
    if "opentelemetry.trace" in sys.modules:
        from opentelemetry.trace import ProxyTracerProvider
        from opentelemetry.trace import get_tracer_provider

        provider = get_tracer_provider()
        if not isinstance(provider, ProxyTracerProvider):
            return provider.get_tracer("workflows")
    return _own_tracer() if any(os.environ.get(name) for name in ENDPOINTS) else None


@cache
def _own_tracer() -> Any | None:
    """A tracer whose spans go to the endpoint; what is left is sent when the process ends."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return None
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    if protocol != "http/protobuf":
        _log.warning("no traces are sent: OTEL_EXPORTER_OTLP_PROTOCOL is %s; known: http/protobuf", protocol)  # fmt: skip
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        _log.warning("no traces are sent: %s; pip install 'tuner[otel]'", error)
        return None
    resource = Resource.create()
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "workflows"}))
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider.get_tracer("workflows")


def _captures() -> bool:
    return os.environ.get(CAPTURE, "").lower() in CAPTURING


def _messages(role: str, text: str) -> str:
    """One message as the conventions have them on spans: JSON."""
    message: dict[str, Any] = {"role": role, "parts": [{"type": "text", "content": text}]}
    if role == "assistant":
        message["finish_reason"] = "stop"
    return json.dumps([message], ensure_ascii=False)


def _kind_of(error: str) -> str:
    """Few values, as the conventions want them of `error.type`."""
    if error == "cancelled":
        return error
    return "timeout" if error.startswith("no complete reply within") else "_OTHER"


def _fail(span: Any, kind: str, text: str | None) -> None:
    from opentelemetry.trace import Status
    from opentelemetry.trace import StatusCode

    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, text))
