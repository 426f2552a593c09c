"""Who may ask the service, and how much at once: decided before a route, and before a body is read.

Apart from `app`, so that no route can forget it.
"""

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp
from starlette.types import Message
from starlette.types import Receive
from starlette.types import Scope
from starlette.types import Send

from tuner.service.book import LOCAL
from tuner.service.book import Book
from tuner.service.book import User
from tuner.service.spec import is_loopback

OPEN = frozenset({"/", "/docs", "/openapi.json", "/healthz"})
"""Paths that tell nothing of studies, and need no token."""

SMALL = 1 << 16
"""Bytes of a body that is no submission."""

BODY_S = 120.0
"""How long a body may take to arrive."""

USER = "tuner.user"
"""Where in its scope a request has its user."""


class Refused(Exception):  # noqa: N818 (it is an answer)
    """An answer that is no."""

    def __init__(self, status: int, error: str, hint: str) -> None:
        super().__init__(error)
        self.status, self.error, self.hint = status, error, hint


class Guard:
    """Lets through who has a token, or speaks to this machine itself where nobody has one."""

    def __init__(
        self, app: ASGIApp, *, book: Book, to_others: bool, largest: Callable[[str, str], int]
    ) -> None:
        """`largest` says how many bytes a body may have, by method and path; `to_others`, whether other machines can ask."""
        self._app = app
        self._book = book
        self._to_others = to_others
        self._largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            if scope["path"] not in OPEN:
                scope[USER] = await self._user(headers)
            most = self._largest(scope["method"], scope["path"])
            length = headers.get("content-length", "0")
            if not length.isascii() or not length.isdigit() or int(length) > most:
                raise _too_large(most)
        except Refused as refused:
            await _answer(refused, send)
            return
        await self._app(scope, _bounded(receive, most), send)

    async def _user(self, headers: Headers) -> User:
        """Raises Refused for whoever may not ask."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if not self._to_others and not await run_in_threadpool(self._book.has_users):
            _require_this_machine(headers)
            return LOCAL
        user = None
        if scheme.lower() == "bearer" and token:
            user = await run_in_threadpool(self._book.user_of, token.strip())
        if user is None:
            raise Refused(
                HTTPStatus.UNAUTHORIZED,
                "the token is missing or not known",
                "send it as `Authorization: Bearer TOKEN`; tuner's own commands take it from TUNER_TOKEN",
            )
        return user


def _require_this_machine(headers: Headers) -> None:
    """Refuse pages in a browser that send requests here from elsewhere, or by a name of their own."""
    host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
    origin = headers.get("origin")
    strange = origin is not None and urlsplit(origin).netloc != headers.get("host")
    if not is_loopback(host) or strange or headers.get("sec-fetch-site") == "cross-site":
        raise Refused(
            HTTPStatus.FORBIDDEN,
            "this service has no users, and answers to programs on its own machine only",
            "give it users: tuner up FILE --add-user NAME",
        )


def _too_large(most: int) -> Refused:
    return Refused(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the body is larger than {most:,} bytes",
        "largest_upload_mb in the service's file says how much may be submitted",
    )


def _bounded(receive: Receive, most: int) -> Receive:
    """The same, for so many bytes and so long."""
    loop = asyncio.get_running_loop()
    ends_s, count, is_whole = loop.time() + BODY_S, 0, False

    async def take() -> Message:
        nonlocal count, is_whole
        if is_whole:
            return await receive()  # waits for the client to leave
        try:
            async with asyncio.timeout_at(ends_s):
                message = await receive()
        except TimeoutError:
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT) from None
        count += len(message.get("body", b""))
        is_whole = not message.get("more_body", False)
        if count > most:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large(most).error)
        return message

    return take


async def _answer(refused: Refused, send: Send) -> None:
    body = json.dumps({"error": refused.error, "hint": refused.hint}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if refused.status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    if refused.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
