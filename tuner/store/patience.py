"""A database that goes away for a while: what its errors mean, and transactions that are done again when it is back.

Apart from `schema`, which opens databases, and from the store, which says what is written: here is the one place where a
driver's errors become ours. A transaction that was cut off may have been committed all the same, so whatever is
done again must look first whether it is done.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from typing import TypeVar

import sqlalchemy as sa

from tuner.errors import StoreError

log = logging.getLogger(__name__)

PATIENCE_S = 600.0
"""How long a run waits for its database."""

PAUSES_S = (0.1, 0.2, 0.5, 1.0)
"""Between one try and the next; the last over and over."""

SAID_EVERY_S = 60.0
"""How often a run that waits says so."""

_FULL = ("disk is full", "No space left on device", "disk quota exceeded", "Disk quota exceeded")

_AWAY = (
    "server closed the connection",
    "consuming input failed",
    "sending query failed",
    "the connection is lost",
    "the connection is closed",
    "terminating connection",
    "starting up",
    "shutting down",
    "in recovery mode",
    "too many clients",
    "deadlock detected",
)
"""PostgreSQL's and its driver's words for what is over in a moment."""

_FOR_GOOD = (
    "does not exist",
    "authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "unable to open database file",
    "file is not a database",
    "readonly database",
    "read-only",
    "permission denied",
)
"""Of a connection that is refused, what waiting does not mend."""

T = TypeVar("T")


class DatabaseAwayError(StoreError):
    """The database is out of reach, or busy for longer than usual; it may be back in a moment."""


def translate_errors(engine: sa.Engine) -> None:
    """Have the engine raise DatabaseAwayError and StoreError where a database is away or its disk is full."""

    def translate(context: Any) -> StoreError | None:
        error = context.original_exception
        said = " ".join(str(error).split())
        where = shown(engine.url)
        if isinstance(error, StoreError):
            return None
        if any(mark in said for mark in _FULL):
            return StoreError(
                f"{where}: the database's disk is full ({said})",
                hint="make room there, then run the same command again: what was finished is kept",
            )
        is_busy = "database is locked" in said
        if not is_busy and not _is_away(context, said):
            return None
        if context.connection is not None and not is_busy:
            context.is_disconnect = True  # the driver does not always know
        return DatabaseAwayError(
            f"{where}: {said}",
            hint="does its server run, and can this machine reach it? `storage:` in the study names it",
        )

    sa.event.listen(engine, "handle_error", translate)


def _is_away(context: Any, said: str) -> bool:
    if context.is_disconnect or any(mark in said for mark in _AWAY):
        return True
    is_unconnected = context.connection is None and isinstance(
        context.original_exception, getattr(context.dialect.loaded_dbapi, "OperationalError", ())
    )
    return is_unconnected and not any(mark in said for mark in _FOR_GOOD)


def shown(url: str | sa.URL) -> str:
    """A database's address without its password."""
    return sa.make_url(url).render_as_string(hide_password=True)


@dataclass(slots=True)
class Patience:
    """Does something over and over until the database lets it."""

    limit_s: float = PATIENCE_S

    def call(self, work: Callable[[bool], T]) -> T:
        """What `work` gives; it is told whether it was begun before. Raises StoreError once patience is at an end."""
        began_s, said_s, tries = time.monotonic(), -SAID_EVERY_S, 0
        while True:
            try:
                result = work(tries > 0)
            except DatabaseAwayError as error:
                waited_s = time.monotonic() - began_s
                if waited_s >= self.limit_s:
                    raise StoreError(
                        f"{error} (waited for {waited_s:.0f} s)",
                        hint="once it is back, run the same command again: what was finished is kept",
                    ) from None
                if waited_s - said_s >= SAID_EVERY_S:
                    log.warning("%s; waiting for it, up to %.0f s", error, self.limit_s)
                    said_s = waited_s
                time.sleep(PAUSES_S[min(tries, len(PAUSES_S) - 1)])
                tries += 1
            else:
                if tries:
                    log.warning("the database is back after %.1f s", time.monotonic() - began_s)
                return result
