"""Models behind one method, `complete`; the only importer of litellm and openai.

`ChatClient` speaks to real servers, `ScriptedLLM` gives the replies it was told to give: a peer that
ships, so that workflows can be tested without a server. Both write one span per try.
"""

import asyncio
import json
import os
import re
from collections import deque
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING
from typing import Any
from typing import Literal
from typing import Protocol
from typing import Self
from weakref import WeakKeyDictionary
from weakref import WeakSet

from workflows.config import ModelSettings
from workflows.errors import ConfigError
from workflows.errors import ModelError
from workflows.errors import ModelTimeout
from workflows.secret import Veil
from workflows.secret import hide
from workflows.trace import Span
from workflows.trace import Trace
from workflows.trace import keepable
from workflows.trace import storable

if TYPE_CHECKING:
    from workflows.wire import Bounded

OnText = Callable[[str], None]
"""Hears of each piece of a reply as it comes."""

Salting = Literal["cache_salt", "prompt"]
"""Where a salt goes: beside the prompt, as vLLM takes it, or before it, as its first line."""

written_down: ContextVar[bool] = ContextVar("written_down", default=False)
"""Whether litellm is being called by a `ChatClient`, which writes the span itself; `workflows.capture` writes the others."""

FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 20.0
"""Where the server does not say when to come again."""

LONGEST_MESSAGE = 500
"""Characters that are kept of what a server says of an error."""
CONNECTIONS = 65536
"""At once, to all servers together: more than a process may have."""

_PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call: an instruction, a prompt to continue, and how to continue it."""

    prompt: str
    system: str = ""
    max_tokens: int
    temperature: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    grammar: str | None = None
    json_schema: Mapping[str, Any] | None = None

    def text(self) -> str:
        """Instruction and prompt as one text, as a completion endpoint gets it."""
        return f"{self.system}\n\n{self.prompt}" if self.system else self.prompt


class LLM(Protocol):
    """A model. Conformance: tests/workflows/test_llm.py."""

    async def complete(self, request: Request, trace: Trace, on_text: OnText | None = None) -> str:
        """The model's reply; every try leaves a span on the trace. Raises ModelError.

        Once `on_text` has heard of a piece, the call is not tried again.
        """
        ...


class ChatClient:
    """A model on a server: chat by litellm, which reaches any provider, or completion by openai's client.

    Replies are streamed, so that the time to the first content is measured. Neither of the two
    retries or caches: a retry here is a span of its own, and a response cache would
    replay latencies.
    """

    def __init__(self, settings: ModelSettings) -> None:
        if settings.endpoint == "completion" and settings.api_base is None:
            raise ConfigError(
                f"model {settings.model}: endpoint: a completion endpoint needs an api_base",
                hint="api_base: http://HOST:PORT/v1",
            )
        self._settings = settings
        self._key = _read_key(settings)
        self._secrets = () if self._key is None else (self._key,)
        # Here, so that no question's latency holds the seconds that this import takes.
        self._litellm = import_litellm()
        self._prices = prices(settings)
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()
        self._first_line = ""
        self._cache_salt: dict[str, str] = {}
        _open_clients.add(self)

    @property
    def settings(self) -> ModelSettings:
        """How the model is reached."""
        return self._settings

    def salted(self, salt: str, how: Salting) -> Self:
        """This client, connections and all, whose prompts no server takes for any that had another salt, or none.

        Among each other they share what they begin with as before. A line before the prompt counts among its
        tokens; spans keep the prompt without it. It reaches `complete` only, not what calls litellm itself.
        """
        other = copy(self)
        other._first_line = f"{salt}\n" if how == "prompt" else ""
        other._cache_salt = {"cache_salt": salt} if how == "cache_salt" else {}
        return other

    async def complete(self, request: Request, trace: Trace, on_text: OnText | None = None) -> str:
        """The reply, after as many retries as the settings allow. Raises ModelError."""
        from tenacity import AsyncRetrying
        from tenacity import retry_if_exception
        from tenacity import stop_after_attempt

        heard = False

        def pass_on(text: str) -> None:
            nonlocal heard
            if on_text is not None and text:
                heard = True
                on_text(text)

        tries = AsyncRetrying(
            stop=stop_after_attempt(self._settings.max_retries + 1),
            wait=self._wait_s,
            retry=retry_if_exception(lambda error: not heard and self._may_pass(error)),
            reraise=True,
        )
        try:
            async for attempt in tries:
                with attempt:
                    number = attempt.retry_state.attempt_number
                    return await self._try(request, trace, number, pass_on)
        except _failures() as error:
            raise self._refusal(error) from None
        raise AssertionError("tenacity returns or raises")

    def _may_pass(self, error: BaseException) -> bool:
        """Whether another try may succeed, and can be made within the patience that the settings have for one."""
        if _status(error) not in _PASSING and _status(error) < HTTPStatus.INTERNAL_SERVER_ERROR:
            return False
        asked_s = _asked_to_wait_s(error)
        return asked_s is None or asked_s <= self._settings.timeout_s

    def _wait_s(self, state: Any) -> float:
        """As long as the server asks to wait, else a random time that grows with each try."""
        from tenacity import wait_random_exponential

        asked_s = _asked_to_wait_s(state.outcome.exception())
        if asked_s is not None:
            return asked_s
        usual = wait_random_exponential(multiplier=FIRST_RETRY_S, max=LONGEST_RETRY_S)
        return usual(state)

    def _refusal(self, error: BaseException) -> ModelError:
        """What the caller hears of the last try's failure."""
        model, api_base = self._settings.model, self._settings.api_base
        message = f"{model} at {api_base or 'its provider’s address'}: {self._describe(error)}"
        if _status(error) == HTTPStatus.REQUEST_TIMEOUT:
            return ModelTimeout(message, hint="raise the model's timeout_s")
        asked_s = _asked_to_wait_s(error)
        if asked_s is not None and asked_s > self._settings.timeout_s:
            message += (
                f" (asks to wait {asked_s:.0f} s, and timeout_s is {self._settings.timeout_s:g})"
            )
            return ModelError(message, hint="come again later, or raise the model's timeout_s")
        if _lacks_model(error):
            message += " (the server has no such model: `model` is a provider's prefix and the server's name for it)"
            return ModelError(
                message, hint=f"GET {api_base or '…'}/models lists the server's names"
            )
        return ModelError(message)

    async def read(self, request: Request, reply: str, trace: Trace) -> None:
        """Have the server read a prompt that it replied to before, so that its cache has what it had then. Raises ModelError."""
        # A chat's reply is in the cache as the assistant's, where no later prompt finds it.
        known = reply if self._settings.endpoint == "completion" else ""
        prompt = replace(request, prompt=request.prompt + known, max_tokens=1)
        await self.complete(replace(prompt, stop=(), grammar=None, json_schema=None), trace)

    def litellm_arguments(self) -> dict[str, Any]:
        """What litellm's chat functions must be given to reach this model, the key included."""
        settings = self._settings
        salt = {"extra_body": self._cache_salt} if self._cache_salt else {}
        return {
            "model": settings.model,
            "api_base": settings.api_base,
            "api_key": self._key,
            "timeout": settings.timeout_s,
            "max_retries": 0,  # by the provider's own client, which nobody could measure
            **salt,
        }

    async def close(self) -> None:
        """Close what is open on this event loop; to be called on the loop that made the calls.

        litellm keeps one set of connections for the whole process: the last client that is closed closes them as well.
        """
        _open_clients.discard(self)
        connections = self._clients.pop(asyncio.get_running_loop(), None)
        if connections is not None:
            await connections.close()
        if not _open_clients:
            await self._litellm.close_litellm_async_clients()
            self._litellm.in_memory_llm_clients_cache.flush_cache()
        await asyncio.sleep(
            0
        )  # sockets are let go in the loop's next turn, and it may have no other

    async def _try(self, request: Request, trace: Trace, attempt: int, pass_on: OnText) -> str:
        from workflows.wire import bound
        from workflows.wire import longest_text
        from workflows.wire import too_long

        start_s = trace.now_s()
        ttft_s: float | None = None
        stream: Any = None
        chunks: list[Any] = []
        parts: list[str] = []
        failure: str | None = None
        body: Bounded | None = None
        room = longest_text(request.max_tokens)
        veil = Veil(self._secrets)
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                stream = await self._open(request)
                body = bound(stream, request.max_tokens)
                async for chunk in stream:
                    chunks.append(chunk)
                    text = storable(_content(chunk))
                    if text:
                        if ttft_s is None:
                            ttft_s = trace.now_s() - start_s
                        room -= len(text)
                        if room < 0:
                            raise too_long("more text than its tokens can be")
                        parts.append(text)
                        pass_on(veil.pass_on(text))
                pass_on(veil.end())
        except BaseException as error:  # whatever ended the try is written down, and goes on
            if stream is not None and not isinstance(error, asyncio.CancelledError):
                await _abandon(stream)
            if body is not None and body.refused is not None:
                failure = self._describe(body.refused)
                raise body.refused from None
            failure = self._describe(error)
            raise
        finally:
            # Here, so that a failed or cancelled try leaves its cost behind as well.
            if self._settings.endpoint == "chat":
                # As the server sent them: where it reports no usage, litellm makes up a chunk of it.
                chunks = getattr(stream, "chunks", [])
            tokens_in, tokens_out, tokens_cached = read_tokens(chunks)
            trace.add(
                Span(
                    kind="llm",
                    name=self._settings.model,
                    start_s=start_s,
                    end_s=trace.now_s(),
                    input=keepable(request.text()),
                    output=hide("".join(parts), self._secrets),
                    ttft_s=ttft_s,
                    tokens_in=tokens_in,
                    tokens_out=tokens_out,
                    tokens_cached=tokens_cached,
                    cost_usd=self._cost_usd(tokens_in, tokens_out, tokens_cached),
                    attempt=attempt,
                    error=failure,
                    seed=request.seed,
                )
            )
        return hide("".join(parts), self._secrets)

    async def _open(self, request: Request) -> Any:
        from workflows.wire import ASK_PLAIN

        settings = self._settings
        request = self._begin(request)
        arguments: dict[str, Any] = {
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.stop:
            arguments["stop"] = list(request.stop)
        if extra := {**self._constraints(request), **self._cache_salt}:
            arguments["extra_body"] = extra
        if settings.api_base is not None:
            arguments["extra_headers"] = dict(ASK_PLAIN)
        if settings.endpoint == "completion":
            provider, _, name = settings.model.partition("/")
            return await self._openai().completions.create(
                model=name or provider, prompt=request.text(), **arguments
            )
        messages = [{"role": "system", "content": request.system}] if request.system else []
        messages.append({"role": "user", "content": request.prompt})
        token = written_down.set(True)
        try:
            return await self._litellm.acompletion(
                messages=messages,
                num_retries=0,
                drop_params=True,  # seeds and the like, where a provider has none
                **{**self.litellm_arguments(), **arguments, **self._own_client()},
            )
        finally:
            written_down.reset(token)

    def _begin(self, request: Request) -> Request:
        """The request with the salt's line, if there is one, before all else."""
        if request.system:
            return replace(request, system=self._first_line + request.system)
        return replace(request, prompt=self._first_line + request.prompt)

    def _openai(self) -> Any:
        # Not by litellm: it opens a connection for each completion, at 20 ms a call, and sends some
        # names to the chat endpoint.
        from httpx2 import Limits
        from openai import DefaultAsyncHttpxClient

        from workflows.wire import cut_error

        kept = None if self._settings.reuse_connections else 0
        return self._kept(
            # Openai's own would close itself on whichever loop runs when it is collected.
            lambda: DefaultAsyncHttpxClient(
                limits=Limits(max_keepalive_connections=kept),
                event_hooks={"response": [cut_error]},
            )
        )

    def _own_client(self) -> dict[str, Any]:
        """What litellm is to reach a server of one's own by: as it would, but that long errors are cut.

        It searches the whole of an error for secrets, which takes 40 s for 10 MB, and nothing else goes on meanwhile.
        """
        from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

        from workflows.wire import cut_error

        def connect() -> Any:
            return AsyncHTTPHandler(
                timeout=self._settings.timeout_s, event_hooks={"response": [cut_error]}
            )

        provider = self._settings.model.partition("/")[0]
        if self._settings.api_base is None or provider not in ("hosted_vllm", "openai"):
            return {}
        if provider == "openai":
            return {"client": self._kept(lambda: connect().client)}
        return {"client": self._kept(connect, openai=False)}

    def _kept(self, connect: Callable[[], Any], *, openai: bool = True) -> Any:
        """The client of this event loop, to which connections are bound: made once."""
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            connections = connect()
            if openai:
                from openai import AsyncOpenAI

                connections = AsyncOpenAI(
                    base_url=self._settings.api_base,
                    api_key=self._key,
                    timeout=self._settings.timeout_s,
                    max_retries=0,
                    http_client=connections,
                )
            self._clients[loop] = connections
        return self._clients[loop]

    def _constraints(self, request: Request) -> dict[str, Any]:
        constraints: dict[str, Any] = {}
        if request.grammar is not None and self._settings.grammar == "llama.cpp":
            constraints["grammar"] = request.grammar
        if request.grammar is not None and self._settings.grammar == "vllm":
            constraints["structured_outputs"] = {"grammar": request.grammar}
        if request.json_schema is not None and self._settings.json_schema:
            constraints["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "reply", "schema": dict(request.json_schema)},
            }
        return constraints

    def _cost_usd(
        self, tokens_in: int | None, tokens_out: int | None, tokens_cached: int | None
    ) -> float | None:
        if self._prices is None or tokens_in is None or tokens_out is None:
            return None
        return self._prices.cost_usd(tokens_in, tokens_out, tokens_cached or 0)

    def _describe(self, error: BaseException) -> str:
        if isinstance(error, TimeoutError):
            return f"no complete reply within {self._settings.timeout_s:g} s"
        if isinstance(error, asyncio.CancelledError):
            return "cancelled"
        text = str(error).partition("\n")[0].removeprefix("litellm.") or type(error).__name__
        return storable(shortened(hide(text, self._secrets)))


_open_clients: "WeakSet[ChatClient]" = WeakSet()
"""Those that may be calling, of all studies that this process runs."""


class ScriptedLLM:
    """A model that gives the replies it was told to give, for tests of workflows.

    `replies` is a list, given one after the other, or a function from the request to the reply. A
    reply that is an exception is raised. Tokens are counted as words. Reads `stop` and `max_tokens`
    as a server would: the reply ends before the first stop text. `delay_s` is what a reply takes; one
    that is listened to comes word by word in that time.
    """

    def __init__(
        self,
        replies: Iterable[str | Exception] | Callable[[Request], str | Exception],
        *,
        delay_s: float = 0.0,
    ) -> None:
        self.requests: list[Request] = []
        """Every request, in the order of arrival."""
        self._replies = replies if callable(replies) else deque(replies)
        self._delay_s = delay_s

    async def complete(self, request: Request, trace: Trace, on_text: OnText | None = None) -> str:
        """The next reply. Raises it when it is an exception, ModelError when none is left."""
        self.requests.append(request)
        start_s = trace.now_s()
        reply = self._next(request)
        text = ""
        failure: str | None = "cancelled"
        try:
            if isinstance(reply, Exception):
                await asyncio.sleep(self._delay_s)
                failure = storable(str(reply))
                raise reply
            whole = _cut(storable(reply), request)
            pieces = [whole] if on_text is None else re.split(r"(?<=\s)", whole)
            for piece in pieces:
                await asyncio.sleep(self._delay_s / len(pieces))
                text += piece
                if on_text is not None and piece:
                    on_text(piece)
            failure = None
        finally:
            end_s = trace.now_s()
            trace.add(
                Span(
                    kind="llm",
                    name="scripted",
                    start_s=start_s,
                    end_s=end_s,
                    input=request.text(),
                    output=text,
                    ttft_s=end_s - start_s if text else None,
                    tokens_in=len(request.text().split()),
                    tokens_out=len(text.split()),
                    tokens_cached=0,
                    error=failure,
                    seed=request.seed,
                )
            )
        return text

    def _next(self, request: Request) -> str | Exception:
        if callable(self._replies):
            return self._replies(request)
        if not self._replies:
            return ModelError(f"the script has no reply left for: {request.prompt[-80:]!r}")
        return self._replies.popleft()


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars per token, from litellm's table."""

    tokens_in: float
    tokens_cached: float
    tokens_out: float

    def cost_usd(self, tokens_in: int, tokens_out: int, tokens_cached: int) -> float:
        """The price of one call; `tokens_in` includes `tokens_cached`."""
        return (
            (tokens_in - tokens_cached) * self.tokens_in
            + tokens_cached * self.tokens_cached
            + tokens_out * self.tokens_out
        )


def prices(settings: ModelSettings) -> Prices | None:
    """What the model costs per token, None where litellm's table does not know it."""
    litellm = import_litellm()
    try:
        info = litellm.get_model_info(settings.model)
    except litellm.exceptions.ModelNotMappedError:
        return None
    tokens_in = info.get("input_cost_per_token")
    tokens_out = info.get("output_cost_per_token")
    if tokens_in is None or tokens_out is None:
        return None
    if tokens_in == tokens_out == 0:
        return None  # at which litellm's router lists what it is given without a price
    cached = info.get("cache_read_input_token_cost")
    return Prices(tokens_in, tokens_in if cached is None else cached, tokens_out)


def import_litellm() -> Any:
    """litellm, quiet and without the cost map that it would fetch at import; takes seconds the first time."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    # Else calls beyond 500 to one server wait in this process, which is no limit of the server's.
    os.environ.setdefault("AIOHTTP_CONNECTOR_LIMIT", str(CONNECTIONS))
    os.environ.setdefault("AIOHTTP_CONNECTOR_LIMIT_PER_HOST", str(CONNECTIONS))
    import litellm

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    return litellm


def _failures() -> tuple[type[Exception], ...]:
    """What a call raises when the server or the way to it is at fault."""
    import httpx  # litellm's own transport
    import httpx2  # openai's
    from litellm.llms.base_llm.chat.transformation import BaseLLMException
    from openai import OpenAIError  # the base of all of litellm's public errors

    from workflows.wire import ReplyError

    return (
        ReplyError,
        TimeoutError,
        OpenAIError,
        BaseLLMException,
        httpx.HTTPError,
        httpx2.HTTPError,
        json.JSONDecodeError,
    )


def _status(error: BaseException) -> int:
    """The HTTP status behind one of the failures, or the one that says the same; 0 for any other error."""
    from openai import APIConnectionError
    from openai import APITimeoutError
    from openai import OpenAIError

    if not isinstance(error, _failures()):
        return 0
    if isinstance(error, TimeoutError | APITimeoutError):
        return HTTPStatus.REQUEST_TIMEOUT
    status: int | None = getattr(error, "status_code", None)
    if status is not None:
        return status
    if isinstance(error, OpenAIError) and not isinstance(error, APIConnectionError):
        return HTTPStatus.BAD_REQUEST  # refused before anything was sent
    return HTTPStatus.BAD_GATEWAY  # no connection, or a reply that broke off


def shortened(message: str) -> str:
    """What is kept of a server's message."""
    return message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}…"


def _asked_to_wait_s(error: BaseException | None) -> float | None:
    """Seconds that the server asks to wait before the next try; None where it does not."""
    from workflows.wire import retry_after_s

    # Of a refusal that litellm made another error of, the server's own headers stand beside it.
    headers = getattr(error, "litellm_response_headers", None)
    if headers is None:
        headers = getattr(getattr(error, "response", None), "headers", None)
    return retry_after_s(headers)


def _lacks_model(error: BaseException) -> bool:
    """Whether the server says that it knows no model of that name."""
    if _status(error) not in (HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST):
        return False
    text = str(error).lower()
    return "model" in text and any(say in text for say in ("not exist", "not found", "unknown"))


async def _abandon(stream: Any) -> None:
    """Close a reply that is not read to its end, or the server would work on for nobody."""
    close = getattr(stream, "aclose", None) or stream.close
    with suppress(RuntimeError, *_failures()):  # what ended the reply is what counts
        await close()


def _read_key(settings: ModelSettings) -> str | None:
    if settings.api_key_env is not None:
        key = os.environ.get(settings.api_key_env)
        if not key:
            raise ConfigError(
                f"model {settings.model}: api_key_env: the environment has no {settings.api_key_env}",
                hint=f"export {settings.api_key_env}=…",
            )
        return key
    # Servers of one's own want no key, but litellm's OpenAI client refuses to start without one.
    return "none" if settings.api_base else None


def _content(chunk: Any) -> str:
    if not chunk.choices:
        return ""
    choice = chunk.choices[0]
    delta = getattr(choice, "delta", None)
    return (delta.content if delta is not None else choice.text) or ""


def read_tokens(chunks: Sequence[Any]) -> tuple[int | None, int | None, int | None]:
    """Tokens in, out and cached as the server reported them with one of the chunks, None where it did not."""
    reported = [usage for chunk in chunks if (usage := getattr(chunk, "usage", None)) is not None]
    if not reported:
        return None, None, None
    usage = reported[-1]
    details = getattr(usage, "prompt_tokens_details", None)
    return usage.prompt_tokens, usage.completion_tokens, getattr(details, "cached_tokens", None)


def _cut(reply: str, request: Request) -> str:
    ends = [at for stop in request.stop if (at := reply.find(stop)) >= 0]
    reply = reply[: min(ends)] if ends else reply
    words = reply.split(" ")
    return " ".join(words[: request.max_tokens])
