"""OpenAI's shapes: what a request asks for, or why it cannot be answered; completions, chunks and errors.

Apart from `app`, which knows of connections: here is what stands on the wire. What a request asks for is done, has no
effect on an agent that was tuned as it is and is in IGNORED, or is refused by name: nothing is left out in silence.
"""

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from http import HTTPStatus
from typing import Any

from tuner.measure.usage import add_up
from workflows.base import Checkpoint
from workflows.base import Outcome
from workflows.trace import Span

IGNORED = frozenset(
    {
        "frequency_penalty",
        "max_completion_tokens",
        "max_tokens",
        "metadata",
        "min_p",
        "parallel_tool_calls",
        "presence_penalty",
        "prompt_cache_key",
        "reasoning_effort",
        "safety_identifier",
        "service_tier",
        "store",
        "temperature",
        "top_k",
        "top_p",
        "user",
        "verbosity",
    }
)
"""How the model samples, and labels for the provider: the exported configuration says how the agent's models are called."""

DONE = "data: [DONE]\n\n"

SHOWN = 500
"""Characters of an observation that progress shows."""


class ApiError(Exception):
    """A request that gets no answer, as OpenAI's clients understand it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})
        self.body = {
            "error": {"message": message, "type": kind, "param": param, "code": code},
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for."""

    question: str
    seed: int
    stream: bool
    include_usage: bool


def read_request(content: Any, *, model: str) -> Asked:
    """The request in a body of JSON. Raises ApiError for what the agent would have to leave out, or cannot do."""
    if not isinstance(content, dict):
        raise _invalid(None, "the body must be a JSON object")
    given = {name: value for name, value in content.items() if value is not None}
    asked_for = given.pop("model", None)
    if not isinstance(asked_for, str):
        raise _invalid("model", f"model: must be a text; served here: {model!r}")
    if asked_for != model:
        raise ApiError(
            HTTPStatus.NOT_FOUND,
            f"The model {asked_for!r} does not exist; served here: {model!r}",
            code="model_not_found",
            param="model",
        )
    question = _question(given.pop("messages", None))
    seed = given.pop("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise _invalid("seed", f"seed: must be a whole number (given: {seed!r})")
    stream = given.pop("stream", False)
    options = given.pop("stream_options", {})
    if not isinstance(stream, bool):
        raise _invalid("stream", f"stream: must be true or false (given: {stream!r})")
    if not isinstance(options, dict) or options.keys() - {"include_usage", "include_obfuscation"}:
        raise _invalid("stream_options", f"stream_options: only include_usage is known (given: {options!r})")  # fmt: skip
    _require_nothing_else(given)
    return Asked(question, seed, stream, bool(options.get("include_usage", False)))


def _require_nothing_else(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if name in IGNORED or _is_default(name, value):
            continue
        raise _invalid(
            name,
            f"{name}: this agent cannot do it: how it answers was settled when it was tuned, and it uses tools of its own",
            code="unsupported_parameter",
        )


def _is_default(name: str, value: Any) -> bool:
    """Whether a parameter says what is so anyway."""
    usual = {
        "n": 1,
        "logprobs": False,
        "tool_choice": "none",
        "function_call": "none",
        "tools": [],
        "functions": [],
        "logit_bias": {},
        "stop": [],
        "modalities": ["text"],
        "response_format": {"type": "text"},
    }
    return name in usual and type(value) is type(usual[name]) and value == usual[name]


def _question(messages: Any) -> str:
    if not isinstance(messages, list) or not messages:
        raise _invalid("messages", "messages: must be a list with one message of role user")
    for message in messages:
        if not isinstance(message, dict) or "role" not in message:
            raise _invalid("messages", f"messages: no message with a role: {message!r}"[:200])
    if messages[-1]["role"] != "user":
        raise _invalid("messages", f"messages: the last one must be the user's question (its role: {messages[-1]['role']!r})")  # fmt: skip
    if len(messages) > 1:
        roles = ", ".join(str(message["role"]) for message in messages[:-1])
        raise _invalid(
            "messages",
            f"messages: this agent answers single questions, as it was measured, and would not see those before ({roles}): "
            "send the question alone, with all that it takes to understand it",
            code="unsupported_value",
        )
    text = _text(messages[0].get("content"))
    if not text.strip():
        raise _invalid("messages", "messages: the question is empty")
    return text


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _invalid("messages", "messages: content must be a text, or a list of parts")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            raise _invalid("messages", f"messages: content: this agent reads text only (given: {kind!r})", code="unsupported_value")  # fmt: skip
        texts.append(part["text"])
    return "\n".join(texts)


def _invalid(param: str | None, message: str, *, code: str | None = None) -> ApiError:
    return ApiError(HTTPStatus.BAD_REQUEST, message, param=param, code=code)


@dataclass(frozen=True, slots=True)
class Reply:
    """One completion: what all that is said of it has in common."""

    model: str
    fingerprint: str
    """Of the configuration."""
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, outcome: Outcome) -> dict[str, Any]:
        """The completion at once."""
        message = {"role": "assistant", "content": outcome.answer, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        used = usage(outcome)
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            **({} if used is None else {"usage": used}),
        }

    def chunk(self, delta: Mapping[str, Any], *, finish: str | None = None) -> str:
        """An event that adds to the message."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _event({**self._head("chat.completion.chunk"), "choices": [choice]})

    def last(self, outcome: Outcome) -> str:
        """The event that says what the completion took."""
        return _event(
            {**self._head("chat.completion.chunk"), "choices": [], "usage": usage(outcome)}
        )

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": f"fp_{self.fingerprint}",
        }


def failure(error: ApiError) -> str:
    """The event that ends a stream which has begun already."""
    return _event(error.body)


def _event(content: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def usage(outcome: Outcome) -> dict[str, Any] | None:
    """Tokens of all calls of the run, None where a server did not count them."""
    used = add_up(outcome.spans)
    if used.tokens_in is None or used.tokens_out is None:
        return None
    cached = {} if used.tokens_cached is None else {"cached_tokens": used.tokens_cached}
    return {
        "prompt_tokens": used.tokens_in,
        "completion_tokens": used.tokens_out,
        "total_tokens": used.tokens_in + used.tokens_out,
        "prompt_tokens_details": cached,
    }


def progress(step: Span | Checkpoint) -> str:
    """A call or a round that has ended, as text for people who wait; one that says nothing is ""."""
    if isinstance(step, Checkpoint):
        return f"[round {step.budget}: {step.answer}]\n" if step.answer else ""
    said = step.output if len(step.output) <= SHOWN else f"{step.output[: SHOWN - 1]}…"
    if step.error is not None and step.error != step.output:
        said = f"{said} [failed]".lstrip()
    if step.kind == "tool":
        return f"{step.name}[{step.input[:SHOWN]}]: {said}\n"
    return f"{said.strip()}\n" if said.strip() else ""
