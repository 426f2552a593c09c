"""The routes of the service's API: each reads the book or changes it, and the engine makes what runs agree.

Apart from `guard`, which decides who may ask, and from `wire`, which says what goes over it.
"""

import asyncio
import html
import json
import logging
from collections.abc import AsyncIterator
from collections.abc import Callable
from contextlib import asynccontextmanager
from contextlib import closing
from datetime import UTC
from datetime import datetime
from http import HTTPStatus
from importlib.metadata import version
from typing import Annotated
from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter
from fastapi import Depends
from fastapi import FastAPI
from fastapi import Header
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.responses import JSONResponse
from fastapi.responses import RedirectResponse
from fastapi.responses import Response
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBearer
from fastapi.sse import KEEPALIVE_COMMENT
from fastapi.sse import format_sse_event
from starlette.exceptions import HTTPException

from tuner.bundle import Bundle
from tuner.content import front_content
from tuner.errors import UserError
from tuner.results import open_results
from tuner.service.book import ENDED
from tuner.service.book import NOBODY
from tuner.service.book import Book
from tuner.service.book import State
from tuner.service.book import Submission
from tuner.service.book import User
from tuner.service.book import Verification
from tuner.service.engine import Engine
from tuner.service.exporting import Exports
from tuner.service.guard import SMALL
from tuner.service.guard import USER
from tuner.service.guard import Guard
from tuner.service.guard import Refused
from tuner.service.log import Reader
from tuner.service.metrics import Metrics
from tuner.service.spec import MEGABYTE
from tuner.service.spec import LoadedService
from tuner.service.submitting import Desk
from tuner.service.totals import Totals
from tuner.service.wire import Export
from tuner.service.wire import Exported
from tuner.service.wire import Health
from tuner.service.wire import Measured
from tuner.service.wire import Refusal
from tuner.service.wire import Spent
from tuner.service.wire import Study
from tuner.service.wire import StudyName
from tuner.service.wire import Submit
from tuner.service.wire import VerificationReply
from tuner.service.wire import Verify
from workflows.errors import WorkflowsError

POLL_S = 0.2
"""Between two looks at a log that somebody follows."""

MOST_DUE = 20
"""Verifications of one study that are still to be made."""

EVENTS = "text/event-stream"

EVENT = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "for Last-Event-ID"},
        "data": {"type": "string", "description": "an event of the study as JSON"},
        "event": {"type": "string", "const": "message"},
    },
    "required": ["id", "data"],
}
"""As the OpenAPI document has it."""

PING_AFTER = 75
"""Looks without anything new, after which whoever stands in between is told that the connection lives."""

_log = logging.getLogger(__name__)


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route may answer instead, for the OpenAPI document."""
    usual = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY)
    return {
        int(status): {"model": Refusal, "description": HTTPStatus(status).phrase}
        for status in (*usual, *statuses)
    }


NOT_FOUND = int(HTTPStatus.NOT_FOUND)
CONFLICT = int(HTTPStatus.CONFLICT)
WITH_BODY = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
)


def make_app(
    service: LoadedService, book: Book, engine: Engine, *, allow_custom: bool = False
) -> FastAPI:
    """The service's API; the engine works for as long as the app lives."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        await asyncio.to_thread(engine.stop)

    def largest(method: str, path: str) -> int:
        is_upload = method == "POST" and path == "/studies"
        return service.spec.largest_upload_mb * MEGABYTE if is_upload else SMALL

    totals = Totals(engine.folders)
    api = Api(
        book=book,
        engine=engine,
        totals=totals,
        desk=Desk(service, book, engine, allow_custom=allow_custom),
        exports=Exports(engine.folders, totals),
    )
    app = FastAPI(
        title="tuner",
        version=version("tuner"),
        description="Studies of a team: a queue over the models that it has.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.include_router(api.router)
    app.add_middleware(Guard, book=book, to_others=service.listens_to_others, largest=largest)
    app.add_exception_handler(Refused, _refuse)
    app.add_exception_handler(UserError, _refuse_mistake)
    app.add_exception_handler(WorkflowsError, _refuse_mistake)
    app.add_exception_handler(RequestValidationError, _refuse_content)
    app.add_exception_handler(HTTPException, _refuse_http)
    app.add_exception_handler(Exception, _fail)

    @app.get("/", include_in_schema=False)
    async def begin() -> RedirectResponse:
        return RedirectResponse("/docs")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page(app.openapi()))

    return app


class Api:
    """What all requests share."""

    def __init__(
        self, *, book: Book, engine: Engine, totals: Totals, desk: Desk, exports: Exports
    ) -> None:
        self._book = book
        self._engine = engine
        self._totals = totals
        self._desk = desk
        self._exports = exports
        self._metrics = Metrics(book, engine, totals)
        self.router = self._routes()

    def _routes(self) -> APIRouter:
        bearer = Depends(
            HTTPBearer(auto_error=False, description="the token that tuner up printed")
        )
        router = APIRouter()
        guarded = APIRouter(dependencies=[bearer])
        one = "/studies/{name}"

        def add(
            method: str,
            path: str,
            function: Callable[..., Any],
            *refusals: int,
            shown: str | None = None,
            **more: Any,
        ) -> None:
            responses = _refusals(*refusals)
            if shown is not None:  # what is no JSON
                schema = EVENT if shown == EVENTS else {"type": "string"}
                responses[int(HTTPStatus.OK)] = {"content": {shown: {"schema": schema}}}
            guarded.add_api_route(path, function, methods=[method], responses=responses, **more)

        add("POST", "/studies", self.submit, CONFLICT, *WITH_BODY, status_code=HTTPStatus.ACCEPTED)
        add("GET", "/studies", self.studies)
        add("GET", one, self.study, NOT_FOUND)
        add("POST", f"{one}/pause", self.pause, NOT_FOUND, CONFLICT)
        add("POST", f"{one}/resume", self.resume, NOT_FOUND, CONFLICT)
        add("POST", f"{one}/cancel", self.cancel, NOT_FOUND, CONFLICT)
        add(
            "GET",
            f"{one}/events",
            self.events,
            NOT_FOUND,
            shown=EVENTS,
            response_class=StreamingResponse,
        )
        add("GET", f"{one}/front", self.front, NOT_FOUND, CONFLICT)
        add("POST", f"{one}/export", self.export, NOT_FOUND, CONFLICT, *WITH_BODY)
        add("POST", f"{one}/verifications", self.verify, NOT_FOUND, CONFLICT, *WITH_BODY, status_code=HTTPStatus.ACCEPTED)  # fmt: skip
        add("GET", f"{one}/verifications", self.verifications, NOT_FOUND)
        add("DELETE", f"{one}/verifications/{{number}}", self.end_verification, NOT_FOUND)
        add("GET", "/models", self.models)
        add("GET", "/metrics", self.metrics, shown="text/plain", response_class=Response)
        router.include_router(guarded)
        unhealthy: dict[int | str, dict[str, Any]] = {503: {"model": Health}}
        router.add_api_route("/healthz", self.health, methods=["GET"], responses=unhealthy)
        return router

    # Studies

    def submit(self, asked: Submit, request: Request) -> Study:
        """Hand in a study. One of the same name goes on where it was, if it is the same but for its budget."""
        bundle = Bundle.read(asked.study, asked.files)
        return self._shown(self._desk.take(bundle, _user(request), asked.priority))

    def studies(self) -> list[Study]:
        """All studies, the oldest first."""
        return [self._shown(row) for row in self._book.submissions()]

    def study(self, name: StudyName) -> Study:
        """One study."""
        return self._shown(self._find(name))

    def pause(self, name: StudyName, request: Request) -> Study:
        """Let a study rest; what it has finished is kept."""
        return self._change(name, request, "paused", of=("queued", "running"))

    def resume(self, name: StudyName, request: Request) -> Study:
        """Let a study go on that rests, was cancelled or has failed."""
        return self._change(name, request, "queued", of=("paused", "cancelled", "failed"))

    def cancel(self, name: StudyName, request: Request) -> Study:
        """End a study; what it has finished is kept."""
        return self._change(name, request, "cancelled", of=("queued", "running", "paused"))

    async def events(
        self,
        name: StudyName,
        last_event_id: Annotated[
            int, Header(ge=0, description="begin behind the event of this id")
        ] = 0,
        follow: bool = True,
    ) -> StreamingResponse:
        """What is heard of a study, from the beginning or behind `Last-Event-ID`; until it ends, or, unless told to follow, until now."""
        await asyncio.to_thread(self._find, name)
        reader = Reader(self._engine.folders.log(name), after=last_event_id)
        heard = self._heard(name, reader, follow=follow)
        return StreamingResponse(heard, media_type=EVENTS, headers={"Cache-Control": "no-cache"})

    async def _heard(self, name: str, reader: Reader, *, follow: bool) -> AsyncIterator[bytes]:
        # By ourselves: FastAPI's way, a generator as the route, logs a traceback for each client that leaves.
        quiet = 0
        while not self._engine.is_stopping:
            new = await asyncio.to_thread(reader.new)
            for number, text in new:
                yield format_sse_event(data_str=text, id=str(number))
            if new:
                quiet = 0
                continue
            quiet += 1
            row = await asyncio.to_thread(self._book.submission, name)
            # Twice, as a state stands in the book before it is heard of.
            if quiet > 1 and (not follow or row is None or row.state in ENDED):
                return
            if quiet % PING_AFTER == 0:
                yield KEEPALIVE_COMMENT
            await asyncio.sleep(POLL_S)

    def front(self, name: StudyName) -> dict[str, Any]:
        """The front found so far: what `tuner front --json` prints."""
        study = self._totals.study(self._begun(name))
        with closing(open_results(study)) as store:
            return front_content(study, store)

    # Exports

    def export(self, name: StudyName, asked: Export) -> Exported:
        """The config that a rule recommends, as files that run."""
        return self._exports.make(self._begun(name), asked)

    def verify(self, name: StudyName, asked: Verify, request: Request) -> VerificationReply:
        """Export the config that a rule recommends, and measure what it claims again, now and from time to time."""
        row = self._begun(name)
        study = self._totals.study(row)
        if study.table_path is not None:
            raise Refused(
                CONFLICT,
                f"study {name} is replayed from a table: it has no servers to be measured again",
                "verify a study that was run",
            )
        if sum(each.next_s is not None for each in self._book.verifications(name)) >= MOST_DUE:
            raise Refused(
                CONFLICT,
                f"study {name} has {MOST_DUE} verifications already that are still to be made",
                f"end some: DELETE /studies/{name}/verifications/ID",
            )
        kept = self._exports.keep(row, asked.rule)
        made = self._book.add_verification(
            study=name,
            user=_user(request).name,
            rule=asked.rule,
            file=kept,
            questions=asked.questions,
            every_s=asked.every_s,
        )
        self._engine.wake()
        return self._verification(made)

    def verifications(self, name: StudyName) -> list[VerificationReply]:
        """The verifications of a study, with what they have found."""
        self._find(name)
        return [self._verification(each) for each in self._book.verifications(name)]

    def end_verification(self, name: StudyName, number: int, request: Request) -> VerificationReply:
        """Measure no more; what was found is kept."""
        self._find(name)
        found = next((each for each in self._book.verifications(name) if each.id == number), None)
        if found is None:
            raise Refused(
                NOT_FOUND,
                f"study {name} has no verification {number}",
                f"GET /studies/{name}/verifications lists them",
            )
        self._require_own(found.user, request)
        self._book.end_verification(number)
        return self._verification(
            next(each for each in self._book.verifications(name) if each.id == number)
        )

    # The service

    def models(self) -> dict[str, Any]:
        """The models that studies may use, as a study's file has them."""
        return self._desk.models()

    def health(self) -> Response:
        """Whether the database answers and the engine works."""
        problem = None
        try:
            self._book.check()
        except sa.exc.SQLAlchemyError:
            _log.exception("the database does not answer")
            problem = "the database does not answer"
        if not self._engine.lives:
            problem = "the engine has ended: see the service's log"
        status = HTTPStatus.OK if problem is None else HTTPStatus.SERVICE_UNAVAILABLE
        said = Health(status="ok" if problem is None else "unavailable", problem=problem)
        return JSONResponse(said.model_dump(), status_code=status)

    def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        content, content_type = self._metrics.text(request.headers)
        return Response(content, headers={"Content-Type": content_type})

    # What they have in common

    def _find(self, name: str) -> Submission:
        row = self._book.submission(name)
        if row is None:
            raise Refused(NOT_FOUND, f"there is no study {name!r}", "GET /studies lists them")
        return row

    def _begun(self, name: str) -> Submission:
        """Raises Refused where nothing is found yet."""
        row = self._find(name)
        if not self._totals.of(row).trials:
            raise Refused(
                CONFLICT,
                f"study {name} has no trials yet",
                "wait until it runs: it is " + row.state,
            )
        return row

    def _require_own(self, user: str, request: Request) -> None:
        me = _user(request)
        if user not in (me.name, NOBODY) and me.name != NOBODY:  # nobody's are everybody's
            raise Refused(
                HTTPStatus.FORBIDDEN,
                f"it belongs to {user}",
                f"ask {user}, or use your own studies",
            )

    def _change(self, name: str, request: Request, to: State, *, of: tuple[State, ...]) -> Study:
        row = self._find(name)
        self._require_own(row.user, request)
        reason = f"by {_user(request).name}"
        if row.state != to and not self._engine.change(name, to, of=of, reason=reason):
            raise Refused(
                CONFLICT,
                f"study {name} is {self._find(name).state}",
                f"this is for studies that are {' or '.join(of)}",
            )
        return self._shown(self._find(name))

    def _shown(self, row: Submission) -> Study:
        total = self._totals.of(row)
        return Study(
            name=row.name,
            user=row.user,
            priority=row.priority,
            state=row.state,
            reason=row.reason,
            submitted=_date(row.submitted_s),
            changed=_date(row.changed_s),
            trials=dict(total.trials),
            front=total.front,
            budget={
                name: Spent(spent=limit["spent"], limit=limit["limit"])
                for name, limit in total.budget.items()
            },
        )

    def _verification(self, each: Verification) -> VerificationReply:
        return VerificationReply(
            id=each.id,
            study=each.study,
            user=each.user,
            rule=each.rule,
            file=each.file,
            every_s=each.every_s,
            due=None if each.next_s is None else _date(each.next_s),
            results=[
                Measured(
                    started=_date(result.started_s),
                    took_s=result.took_s,
                    outcome=result.outcome,  # type: ignore[arg-type]
                    content=dict(result.content),
                )
                for result in self._book.results(each.id)
            ],
        )


def _user(request: Request) -> User:
    user: User = request.scope[USER]
    return user


def _date(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _said(status: int, error: str, hint: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": error, "hint": hint}, status_code=status, headers=headers)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _said(error.status, error.error, error.hint)


async def _refuse_mistake(request: Request, error: Exception) -> Response:
    assert isinstance(error, UserError | WorkflowsError)
    return _said(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), error.hint or "")


async def _refuse_content(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return _said(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        f"{where}: {first['msg']}",
        "GET /openapi.json describes what is taken",
    )


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _said(
        error.status_code,
        f"{error.detail}: {request.method} {request.url.path}",
        "GET /docs lists what there is",
        error.headers,
    )


async def _fail(request: Request, error: Exception) -> Response:
    return _said(
        HTTPStatus.INTERNAL_SERVER_ERROR, "a defect of the service", "its log has the traceback"
    )


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>tuner's API</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
h2 {{ font-size: 1rem; border-top: 1px solid #8888; padding-top: 1rem }}
code, pre {{ font-family: ui-monospace, monospace; font-size: .9em }}
pre {{ overflow-x: auto; background: #8881; padding: .5rem }}
</style></head><body>
<h1>tuner's API</h1>
<p>{about} The whole of it is in <a href="/openapi.json">openapi.json</a>.</p>
{operations}
<h1>What goes over it</h1>
{schemas}
</body></html>
"""


def page(document: dict[str, Any]) -> str:
    """The operations of an OpenAPI document as a page that needs no network: Swagger's own loads its script from one."""
    operations = []
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            parameters = ", ".join(each["name"] for each in told.get("parameters", ()))
            body = json.dumps(told.get("requestBody", {}).get("content", {}))
            schema = body.rpartition("schemas/")[2].partition('"')[0] if "schemas/" in body else ""
            takes = [part for part in (parameters, schema and f"body {schema}") if part]
            operations.append(
                f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>"
                f"<p>{html.escape(told.get('description', told['summary']))}</p>"
                f"<p>{html.escape('Takes: ' + '; '.join(takes)) if takes else ''} "
                f"Answers: {', '.join(told['responses'])}.</p>"
            )
    schemas = [
        f'<h2 id="{name}"><code>{name}</code></h2><pre>{html.escape(json.dumps(schema, indent=1))}</pre>'
        for name, schema in document["components"]["schemas"].items()
    ]
    return PAGE.format(
        about=html.escape(document["info"]["description"]),
        operations="\n".join(operations),
        schemas="\n".join(schemas),
    )
