"""Asking a service: what the command line does with its API, over HTTP as anybody else.

Apart from the service itself, of which nothing is imported: whoever submits needs no more than an address and a token.
"""

import json
import os
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any
from typing import Self
from urllib.parse import quote
from urllib.parse import urlsplit

import httpx

from tuner.errors import UserError

ADDRESS = "TUNER_SERVICE"
"""Environment variable with the service's address."""

TOKEN = "TUNER_TOKEN"  # noqa: S105 (a name)
"""Environment variable with the user's token."""

DEFAULT_ADDRESS = "http://127.0.0.1:8090"

CONNECT_S = 10.0
ANSWER_S = 600.0
"""A submission is loaded before it is answered, questions and all."""

SILENT_S = 60.0
"""A log that is followed says every 15 s that it lives."""

AGAIN_S = 2.0
"""Before a log that was cut off is asked for again."""


class Client:
    """Asks one service."""

    def __init__(self) -> None:
        """Address and token are the environment's. Raises UserError for an address that is none."""
        self.address = os.environ.get(ADDRESS, "").rstrip("/") or DEFAULT_ADDRESS
        parts = urlsplit(self.address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(
                f"{ADDRESS}={self.address}: is no address",
                hint=f"export {ADDRESS}={DEFAULT_ADDRESS}",
            )
        token = os.environ.get(TOKEN)
        is_here = parts.hostname in ("127.0.0.1", "localhost", "::1")
        self._http = httpx.Client(
            base_url=self.address,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
            trust_env=not is_here,  # what proxies there are lead away from this machine
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.close()

    def get(self, path: str) -> Any:
        """What is read there. Raises UserError with what the service says against it."""
        return self._ask("GET", path)

    def post(self, path: str, content: Any = None) -> Any:
        """What is answered there. Raises UserError as `get` does."""
        return self._ask("POST", path, content)

    def change(self, name: str, verb: str) -> Any:
        """Cancel, pause or resume a study; gives it. Raises UserError as `get` does."""
        return self.post(f"{_path(name)}/{verb}")

    def events(self, name: str, *, follow: bool) -> Iterator[dict[str, Any]]:
        """What is heard of a study; followed, until it ends, over however many connections that takes."""
        last = 0
        while True:
            try:
                for number, event in self._stream(name, after=last, follow=follow):
                    last = number
                    yield event
                if not follow or self.get(_path(name))["state"] in (
                    "done",
                    "failed",
                    "cancelled",
                ):
                    return
            except (httpx.TransportError, _GoneError):
                if not follow or last == 0:
                    raise self._unreachable() from None
            time.sleep(AGAIN_S)

    def _stream(
        self, name: str, *, after: int, follow: bool
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        headers = {"Last-Event-ID": str(after)} if after else {}
        query = {"follow": str(follow).lower()}
        timeout = httpx.Timeout(SILENT_S, connect=CONNECT_S)
        with self._http.stream(
            "GET", f"{_path(name)}/events", params=query, headers=headers, timeout=timeout
        ) as reply:
            if reply.status_code != httpx.codes.OK:
                reply.read()
                raise self._refusal(reply)
            data, number = "", after
            for line in reply.iter_lines():
                key, _, value = line.partition(": ")
                if key == "data":
                    data += value
                elif key == "id":
                    number = int(value)
                elif not line and data:
                    yield number, json.loads(data)
                    data = ""

    def _ask(self, method: str, path: str, content: Any = None) -> Any:
        try:
            reply = self._http.request(method, path, json=content)
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        if reply.is_error:
            raise self._refusal(reply)
        try:
            return reply.json()
        except ValueError:
            raise UserError(
                f"{self.address}: what answers there is no service of tuner",
                hint=f"{ADDRESS} says where it is",
            ) from None

    def _unreachable(self, error: Exception | None = None) -> UserError:
        why = f": {error}" if error is not None and str(error) else ""
        return _GoneError(
            f"{self.address}: no service answers{why}",
            hint=f"start one with tuner up FILE, or say where it is: export {ADDRESS}={DEFAULT_ADDRESS}",
        )

    def _refusal(self, reply: httpx.Response) -> UserError:
        try:
            content = reply.json()
            return UserError(str(content["error"]), hint=str(content["hint"]))
        except (ValueError, KeyError, TypeError):
            return UserError(
                f"{self.address}: answered with status {reply.status_code}",
                hint=f"is that a service of tuner? {ADDRESS} says where it is",
            )


def _path(name: str) -> str:
    return f"/studies/{quote(name, safe='')}"


class _GoneError(UserError):
    """Nothing answers."""
