"""Writes down the calls that a function of the user's makes straight through litellm; apart from `llm`, whose own calls it leaves alone.

Chat and text completions, sync or async, and the retries, fallbacks and routers around them all come
down to one function of litellm's. That is where a try is heard of, so that one try is one span, by
whatever name and from whatever library the call came.
"""

import asyncio
import inspect
import sys
from collections.abc import AsyncIterator
from collections.abc import Callable
from collections.abc import Coroutine
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from functools import wraps
from typing import Any

from workflows.config import ModelSettings
from workflows.errors import ModelError
from workflows.llm import Prices
from workflows.llm import import_litellm
from workflows.llm import prices
from workflows.llm import read_tokens
from workflows.llm import shortened
from workflows.llm import written_down
from workflows.secret import hide
from workflows.trace import Span
from workflows.trace import Trace
from workflows.trace import keepable

CANCELLED = "cancelled"
LEFT = "not read to its end"


class _Run:
    """The trace of a run, and the tries that are under way in it."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.open: set[_Try] = set()
        self.over = False

    def close(self, why: str) -> None:
        """Write down what is still open, and let nothing begin."""
        self.over = True
        for one in list(self.open):
            one.end(why)


_run: ContextVar[_Run | None] = ContextVar("run", default=None)


class _Try:
    """One try under way. Whoever ends it first, in whichever thread, writes its only span."""

    def __init__(self, run: _Run, given: Mapping[str, Any]) -> None:
        self._run = run
        self._model = str(given.get("model"))
        self._input = "\n\n".join(_text(message) for message in given.get("messages") or ())
        self._key = str(given.get("api_key") or "")
        self._start_s = run.trace.now_s()
        self._first_s: float | None = None
        self._last_s: float | None = None
        self._replies: list[Any] = []
        run.open.add(self)

    def follow(self, reply: Any) -> Any:
        """The reply as its caller gets it: one that is yet to come, or comes in chunks, is heard to its end."""
        if inspect.iscoroutine(reply):
            return self._wait(reply)
        if hasattr(reply, "__next__") and hasattr(reply, "chunks"):
            # Not the stream itself: one that nobody reads any more must be free to close.
            self._replies = reply.chunks
            reply.heard_by = self
            reply.__class__ = _heard_stream(reply.__class__)
        elif inspect.isgenerator(reply):
            return self._pass_on(reply)
        elif inspect.isasyncgen(reply):
            return self._pass_on_async(reply)
        else:
            self._replies = [reply]
            self.end()
        return reply

    async def _wait(self, reply: Coroutine[Any, Any, Any]) -> Any:
        with self.trying():
            response = await reply
        return self.follow(response)

    def _pass_on(self, stream: Iterator[Any]) -> Iterator[Any]:
        try:
            for chunk in stream:
                self._replies.append(chunk)
                self.hear(chunk)
                yield chunk
        except BaseException as error:  # as in `trying`, which must not reach to whoever reads
            self.end(error)
            raise
        self.end()

    async def _pass_on_async(self, stream: AsyncIterator[Any]) -> AsyncIterator[Any]:
        try:
            async for chunk in stream:
                self._replies.append(chunk)
                self.hear(chunk)
                yield chunk
        except BaseException as error:
            self.end(error)
            raise
        self.end()

    @contextmanager
    def trying(self) -> Iterator[None]:
        """While litellm works on it: what goes wrong ends it, and a try within takes its place."""
        token = _trying.set(self)
        try:
            yield
        except BaseException as error:  # whatever ended the try is written down, and goes on
            self.end(error)
            raise
        finally:
            _trying.reset(token)

    def hear(self, chunk: Any) -> None:
        """A chunk was read."""
        self._last_s = self._run.trace.now_s()
        if self._first_s is None and _said(chunk):
            self._first_s = self._last_s

    def drop(self) -> None:
        """Leave no span: the call was handed on to others, as to fallbacks."""
        self._run.open.discard(self)

    def end(self, error: BaseException | str | None = None) -> None:
        """Write the span."""
        try:
            self._run.open.remove(self)
        except KeyError:
            return
        end_s = self._run.trace.now_s()
        if isinstance(error, str) and self._last_s is not None:
            end_s = self._last_s  # left to itself: as far as anybody knows, it ended there
        tokens_in, tokens_out, tokens_cached = read_tokens(self._replies)
        if not tokens_in:  # where the server counts nothing, litellm has a count of zero
            tokens_in = tokens_out = tokens_cached = None
        # As the caller wrote it: litellm puts the kind of endpoint before some.
        name = self._model.removeprefix("text-completion-")
        cost_usd = None
        if tokens_in is not None and tokens_out is not None and (price := _prices(name)):
            cost_usd = price.cost_usd(tokens_in, tokens_out, tokens_cached or 0)
        self._run.trace.add(
            Span(
                kind="llm",
                name=name,
                start_s=self._start_s,
                end_s=end_s,
                input=self._kept(self._input),
                output=self._kept("".join(_said(reply) for reply in self._replies)),
                ttft_s=None if self._first_s is None else self._first_s - self._start_s,
                tokens_in=tokens_in,
                tokens_out=tokens_out,
                tokens_cached=tokens_cached,
                cost_usd=cost_usd,
                error=self._describe(error),
            )
        )

    def _kept(self, text: str) -> str:
        return keepable(hide(text, [self._key]))

    def _describe(self, error: BaseException | str | None) -> str | None:
        if error is None or isinstance(error, str):
            return error
        if isinstance(error, asyncio.CancelledError):
            return CANCELLED
        if isinstance(error, GeneratorExit):
            return LEFT
        text = str(error).partition("\n")[0].removeprefix("litellm.") or type(error).__name__
        return keepable(shortened(hide(text, [self._key])))


_trying: ContextVar[_Try | None] = ContextVar("trying", default=None)


@contextmanager
def listening(trace: Trace) -> Iterator[None]:
    """Within, and in tasks and threads that are started with this context, every try leaves its span on the trace.

    What is still open at the end is written down as it is then. What goes on after it, as a thread
    does that nobody can cancel, gets a ModelError for its next call, which would disturb other runs.
    """
    run = _Run(trace)
    token = _run.set(run)
    why = LEFT
    try:
        yield
    except asyncio.CancelledError:
        why = CANCELLED
        raise
    finally:
        _run.reset(token)
        run.close(why)


@cache
def install() -> None:
    """Have litellm's completions heard from now on; those outside of `listening` pass as before."""
    litellm = import_litellm()
    usual = litellm.main.completion
    # Beneath litellm's own decorator, which retries.
    heard = litellm.utils.client(_heard(inspect.unwrap(usual)))
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is usual:  # wherever it was imported to by then
                setattr(module, name, heard)


def _heard(completion: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(completion)
    def try_once(*args: Any, **kwargs: Any) -> Any:
        run = _run.get()
        if run is None or written_down.get():
            return completion(*args, **kwargs)
        if run.over:
            raise ModelError("the run that this call belongs to is over")
        if (outer := _trying.get()) is not None:
            outer.drop()
        one = _Try(run, {**dict(zip(("model", "messages"), args, strict=False)), **kwargs})
        with one.trying():
            reply = completion(*args, **kwargs)
        return one.follow(reply)

    return try_once


@cache
def _heard_stream(kind: Any) -> type[Any]:
    """That kind of stream, telling its try what is read from it: still one of the kind to whoever asks."""

    def read(stream: Any) -> Any:
        try:
            chunk = kind.__next__(stream)
        except StopIteration:
            stream.heard_by.end()
            raise
        except BaseException as error:
            stream.heard_by.end(error)
            raise
        stream.heard_by.hear(chunk)
        return chunk

    async def read_async(stream: Any) -> Any:
        try:
            chunk = await kind.__anext__(stream)
        except StopAsyncIteration:
            stream.heard_by.end()
            raise
        except BaseException as error:
            stream.heard_by.end(error)
            raise
        stream.heard_by.hear(chunk)
        return chunk

    return type(kind.__name__, (kind,), {"__next__": read, "__anext__": read_async})


@cache
def _prices(model: str) -> Prices | None:
    return prices(ModelSettings(model=model))


def _said(reply: Any) -> str:
    """The text of a reply or of a chunk of one; a call of a tool is its name and arguments."""
    return "".join(
        _text(_part(choice, "message") or _part(choice, "delta") or choice)
        for choice in reply.choices
    )


def _text(message: Any) -> str:
    content = _part(message, "content") or _part(message, "text") or ""
    if not isinstance(content, str):
        content = "\n".join(
            _part(piece, "text") or f"[{_part(piece, 'type')}]" for piece in content
        )
    calls: Iterable[Any] = _part(message, "tool_calls") or ()
    functions = [_part(call, "function") for call in calls]
    return content + "".join(
        f"{_part(function, 'name') or ''}{_part(function, 'arguments') or ''}"
        for function in functions
    )


def _part(of: Any, name: str) -> Any:
    return of.get(name) if isinstance(of, Mapping) else getattr(of, name, None)
