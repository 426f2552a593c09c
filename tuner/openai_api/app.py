"""The routes of an agent's API: who may ask, how much, how many at once and for how long; a run ends with its connection.

Apart from `wire`, which knows what requests mean, and from `server`, which listens.
"""

import asyncio
import hmac
import json
import logging
import math
from collections.abc import AsyncIterator
from contextlib import ExitStack
from contextlib import asynccontextmanager
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive
from starlette.types import Scope
from starlette.types import Send

from tuner.deploy import Deployed
from tuner.errors import ServingError
from tuner.measure.total import total
from tuner.openai_api.energy import Energy
from tuner.openai_api.metrics import Metrics
from tuner.openai_api.wire import DONE
from tuner.openai_api.wire import ApiError
from tuner.openai_api.wire import Asked
from tuner.openai_api.wire import Reply
from tuner.openai_api.wire import failure
from tuner.openai_api.wire import progress
from tuner.openai_api.wire import read_request
from workflows.base import Checkpoint
from workflows.base import Outcome
from workflows.errors import ModelError
from workflows.errors import ModelTimeout
from workflows.session import OnProgress
from workflows.telemetry import continuing
from workflows.trace import Span

BODY_S = 30.0
"""How long a body may take to arrive."""

PING_S = 15.0
"""How often a stream says that it lives, for whoever stands in between and closes silent connections."""

HEALTH_S = 1.0
"""For how long it counts what a look at the models' servers has shown."""

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

_CLOSED = 499
"""What is logged in the place of a status where nobody waits for one any more."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is taken on."""

    concurrency: int = 8
    """Requests answered at once."""
    queue: int = 32
    """Requests that may wait for their turn."""
    timeout_s: float = 300.0
    """From a request's arrival to its answer."""
    max_body_bytes: int = 1 << 20


def make_app(deployed: Deployed, *, name: str, limits: Limits, api_key: str | None) -> Starlette:
    """The API of a deployed agent, which clients call `name`. Without a key, only who speaks to this machine itself may ask."""
    api = _Api(deployed, name, limits, api_key)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", api.complete, methods=["POST"]),
            Route("/v1/models", api.list_models),
            Route("/v1/models/{model:path}", api.show_model),
            Route("/healthz", api.health),
            Route("/metrics", api.show_metrics),
        ],
        exception_handlers={
            ApiError: api.refuse,
            HTTPException: api.refuse_http,
            Exception: _fail,
        },
        lifespan=api.lifespan,
    )


class _Api:
    """What all requests share."""

    def __init__(self, deployed: Deployed, name: str, limits: Limits, api_key: str | None) -> None:
        self._deployed = deployed
        self._agent = deployed.agent
        self._name = name
        self._limits = limits
        self._api_key = api_key
        self._places = asyncio.Semaphore(limits.concurrency)
        self._inside = 0
        meters = [each.meter for each in deployed.running.values()]
        meter = total(meters)
        self._metrics = Metrics(
            deployed.file,
            tools=self._agent.open_session().tools.keys(),
            metered=all(each.source != "none" for each in meters),
        )
        self._energy: Energy | None = None
        if self._metrics.query_energy is not None and self._metrics.idle_energy is not None:
            self._energy = Energy(
                meter,
                query_j=self._metrics.query_energy.observe,
                idle_j=self._metrics.idle_energy.inc,
            )
        self._health = asyncio.Lock()
        self._health_s, self._unhealthy = -math.inf, ""
        """When the models' servers were looked at last, and which of them was not well."""
        self._mean_s = 1.0
        """Of the latest answers, for whoever is told to come back later."""

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """While requests are taken on."""
        with ExitStack() as stack:
            if self._energy is not None:
                stack.enter_context(self._energy)
            yield
        await self._agent.close()

    # Routes

    async def complete(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        self._authorize(request)
        asked = read_request(await self._content(request), model=self._name)
        if self._inside >= self._limits.concurrency + self._limits.queue:
            raise ApiError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"{self._limits.concurrency} requests are being answered and {self._limits.queue} wait: try again later",
                kind="rate_limit_error",
                code="queue_full",
                headers={"Retry-After": str(self._free_in_s())},
            )
        reply = Reply(self._name, self._deployed.file.config.hash())
        if asked.stream:
            steps = _Steps()
            answering = self._begin(asked, request, steps.put)
            answering.add_done_callback(lambda _: steps.put(None))
            return _Stream(self._events(asked, reply, answering, steps), answering)
        answering = self._begin(asked, request, lambda step: None)
        if not await _ends_first(answering, request.receive):
            return Response(status_code=_CLOSED)
        return JSONResponse(reply.whole(answering.result()))

    async def list_models(self, request: Request) -> Response:
        """GET /v1/models."""
        self._authorize(request)
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def show_model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        self._authorize(request)
        if request.path_params["model"] != self._name:
            raise ApiError(
                HTTPStatus.NOT_FOUND,
                f"The model {request.path_params['model']!r} does not exist; served here: {self._name!r}",
                code="model_not_found",
                param="model",
            )
        return JSONResponse(self._model())

    async def health(self, request: Request) -> Response:
        """GET /healthz: whether every model's server answers."""
        async with self._health:  # anybody may ask, and servers are looked at once for all
            if asyncio.get_running_loop().time() > self._health_s + HEALTH_S:
                self._unhealthy = await self._first_unhealthy()
                self._health_s = asyncio.get_running_loop().time()
        if self._unhealthy:
            said = {"status": "unavailable", "model": self._unhealthy}
            return JSONResponse(said, status_code=HTTPStatus.SERVICE_UNAVAILABLE)
        return JSONResponse({"status": "ok"})

    async def _first_unhealthy(self) -> str:
        for name, each in self._deployed.running.items():
            try:
                await asyncio.to_thread(each.endpoint.check)
            except ServingError as error:
                _log.warning("not healthy: %s", error)
                return name
        return ""

    async def show_metrics(self, request: Request) -> Response:
        """GET /metrics."""
        self._authorize(request)
        content, content_type = self._metrics.text(request.headers)
        return Response(content, headers={"Content-Type": content_type})

    def _model(self) -> dict[str, Any]:
        return {"id": self._name, "object": "model", "created": 0, "owned_by": "tuner"}

    # What is refused

    def _authorize(self, request: Request) -> None:
        if self._api_key is None:
            # A page in a browser on this machine may send requests here by a name of its own.
            if request.url.hostname not in LOOPBACK:
                raise ApiError(
                    HTTPStatus.FORBIDDEN,
                    f"this server answers to this machine only, not as {request.url.hostname}",
                    code="forbidden_host",
                )
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        is_known = hmac.compare_digest(given.strip().encode(), self._api_key.encode())
        if scheme.lower() != "bearer" or not is_known:
            raise ApiError(
                HTTPStatus.UNAUTHORIZED,
                "Incorrect API key provided: send the server's as `Authorization: Bearer KEY`",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _content(self, request: Request) -> Any:
        """The body's JSON, of the size that is allowed."""
        # Else a page in a browser could send one without asking first.
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise ApiError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "the header Content-Type must be application/json",
                code="unsupported_media_type",
            )
        body = bytearray()
        most = self._limits.max_body_bytes
        try:
            async with asyncio.timeout(BODY_S):
                async for piece in request.stream():
                    body += piece
                    if len(body) > most:
                        raise ApiError(
                            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                            f"the body is larger than {most} bytes",
                            code="request_too_large",
                            headers={"Connection": "close"},
                        )
        except TimeoutError:
            raise ApiError(
                HTTPStatus.REQUEST_TIMEOUT,
                f"the body took more than {BODY_S:g} s to arrive",
                code="request_timeout",
                headers={"Connection": "close"},
            ) from None
        except ClientDisconnect:
            raise ApiError(_CLOSED, "the client has left", code="client_left") from None
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ApiError(HTTPStatus.BAD_REQUEST, f"the body is no JSON: {error}"[:200]) from None

    async def refuse(self, request: Request, error: Exception) -> Response:
        """An ApiError as a response; counted where the request was not taken on."""
        assert isinstance(error, ApiError)
        if error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            self._metrics.refused(error.code or "invalid_request")
        return JSONResponse(error.body, status_code=error.status, headers=error.headers)

    async def refuse_http(self, request: Request, error: Exception) -> Response:
        """What Starlette refuses: an unknown path, another method."""
        assert isinstance(error, HTTPException)
        said = f"{error.detail}: {request.method} {request.url.path}"
        return await self.refuse(request, ApiError(error.status_code, said, headers=error.headers))

    # What is answered

    def _begin(
        self, asked: Asked, request: Request, on_progress: OnProgress
    ) -> "asyncio.Task[Outcome]":
        """The answer under way, which counts as inside from now until it ends, even where it is cancelled before it begins."""
        self._inside += 1
        answering = asyncio.create_task(self._answer(asked, request, on_progress))
        answering.add_done_callback(self._leave)
        return answering

    def _leave(self, answering: "asyncio.Task[Outcome]") -> None:
        self._inside -= 1

    async def _answer(self, asked: Asked, request: Request, on_progress: OnProgress) -> Outcome:
        """The agent's answer, in its turn. Raises ApiError."""
        loop = asyncio.get_running_loop()
        arrived_s = loop.time()
        ended = "cancelled"

        def heard(step: Span | Checkpoint) -> None:
            if isinstance(step, Span):
                self._metrics.called(step)
            on_progress(step)

        try:
            async with asyncio.timeout(self._limits.timeout_s) as limit:
                outcome = await self._in_turn(asked, request, heard)
            ended = "answered"
        except TimeoutError:
            ended = "timed_out" if limit.expired() else "failed"
            if not limit.expired():
                raise
            raise ApiError(
                HTTPStatus.GATEWAY_TIMEOUT,
                f"no answer within {self._limits.timeout_s:g} s",
                kind="timeout_error",
                code="timeout",
            ) from None
        except Exception as error:
            ended = "failed"
            cause = _first(error)
            if not isinstance(cause, ModelError):
                raise
            raise _no_reply(cause) from None
        finally:
            self._metrics.ended(ended)
            if ended == "answered":
                took_s = loop.time() - arrived_s
                self._metrics.latency.observe(took_s)
                self._mean_s += (took_s - self._mean_s) / 8
        return outcome

    async def _in_turn(self, asked: Asked, request: Request, on_progress: OnProgress) -> Outcome:
        with self._metrics.waiting.track_inprogress():
            await self._places.acquire()
        try:
            with ExitStack() as stack:
                stack.enter_context(self._metrics.in_flight.track_inprogress())
                stack.enter_context(continuing(request.headers))
                if self._energy is not None:
                    stack.enter_context(self._energy.query())
                return await self._agent.run(
                    asked.question, seed=asked.seed, on_progress=on_progress
                )
        finally:
            self._places.release()

    async def _events(
        self, asked: Asked, reply: Reply, answering: "asyncio.Task[Outcome]", steps: "_Steps"
    ) -> AsyncIterator[str]:
        """A streamed completion: each call and round as reasoning once it has ended, then the answer."""
        yield reply.chunk({"role": "assistant", "content": ""})
        while True:
            try:
                step = await asyncio.wait_for(steps.get(), PING_S)
            except TimeoutError:
                yield ": still working\n\n"
                continue
            if step is None:
                break
            if text := progress(step):
                yield reply.chunk({"reasoning_content": text})
        try:
            outcome = answering.result()
        except ApiError as error:
            yield failure(error)
            return
        except Exception:  # the request's boundary: the status is sent already
            _log.exception("a request failed")
            yield failure(_internal())
            return
        yield reply.chunk({"content": outcome.answer})
        yield reply.chunk({}, finish="stop")
        if asked.include_usage:
            yield reply.last(outcome)
        yield DONE

    def _free_in_s(self) -> int:
        """Seconds until the queue is likely to have moved on by a few."""
        return max(1, math.ceil(self._mean_s))


class _Steps:
    """What has ended of a run, in its order; None once all has. It may be told from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Span | Checkpoint | None] = asyncio.Queue()

    def put(self, step: Span | Checkpoint | None) -> None:
        """The next of them."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, step)

    async def get(self) -> Span | Checkpoint | None:
        """The next of them, once it is there."""
        return await self._queue.get()


class _Stream(Response):
    """Server-sent events for as long as somebody listens; then the work behind them is cancelled."""

    def __init__(self, events: AsyncIterator[str], work: "asyncio.Task[Any]") -> None:
        self._events = events
        self._work = work
        super().__init__(
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events. One that nobody hears any more ends them."""
        sending = asyncio.create_task(self._send(send))
        try:
            if await _ends_first(sending, receive):
                sending.result()
        finally:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}  # fmt: skip
        await send(start)
        async for event in self._events:
            body = event.encode()
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _ends_first(work: "asyncio.Task[Any]", receive: Receive) -> bool:
    """Whether the work ended, well or not, before the client was gone, which cancels it."""

    async def leave() -> None:
        with suppress(ClientDisconnect):
            while (await receive())["type"] != "http.disconnect":
                pass

    leaving = asyncio.create_task(leave())
    try:
        await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return work.done()
    finally:
        for task in (work, leaving):
            task.cancel()
        await asyncio.gather(work, leaving, return_exceptions=True)


def _first(failure: BaseException) -> BaseException:
    """The first cause of a failure; concurrent calls fail in groups."""
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


def _no_reply(error: ModelError) -> ApiError:
    """What clients are told of a model that failed: nothing of addresses within, which the log has."""
    _log.warning("no answer: %s", error)
    late = isinstance(error, ModelTimeout)
    return ApiError(
        HTTPStatus.GATEWAY_TIMEOUT if late else HTTPStatus.BAD_GATEWAY,
        f"a model behind this agent {'took too long' if late else 'gave no usable reply'}",
        kind="upstream_error",
        code="model_timeout" if late else "model_error",
    )


def _internal() -> ApiError:
    return ApiError(
        HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed; its log says why", kind="server_error"
    )


async def _fail(request: Request, error: Exception) -> Response:
    """A defect of ours as a response; Starlette raises it once more, for the log."""
    return JSONResponse(_internal().body, status_code=HTTPStatus.INTERNAL_SERVER_ERROR)
