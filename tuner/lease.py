"""Who runs a study: one process at a time, which says over and over that it lives.

Apart from the store, which keeps who it is and refuses the writes of whoever lost it, and from `study`, which holds the
lease while it runs: here is how it is told that an owner is gone. On this host by its process. Elsewhere by its beat, a
number that it raises every quarter of the lease: an owner whose beat stands still for a whole lease, by the watcher's own
monotonic clock, is gone. No two clocks are ever compared, so that none of them may be wrong or jump.
"""

import logging
import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

import psutil
from sqlalchemy.exc import SQLAlchemyError

from tuner.errors import StoreError
from tuner.store import Store
from tuner.store import StudyRow

if TYPE_CHECKING:
    from tuner.store.own_trials import OwnersStorage

log = logging.getLogger(__name__)

LEASE_S = 60.0
"""How long an owner on another host may be silent before it counts as gone."""

BEATS = 4
"""In one lease."""

LOOKS = 60
"""At another owner's beat in one lease."""


class Lease:
    """A study held by this process, from entering to leaving; writes of whoever held it before are refused.

    Entering raises StoreError while another process holds it.
    """

    def __init__(
        self,
        store: Store,
        storage: "OwnersStorage | None" = None,
        *,
        length_s: float = LEASE_S,
        host: str | None = None,
    ) -> None:
        """`storage` is Optuna's, which is then written to on the same terms; `host` is this one, unless it is said."""
        me = psutil.Process()
        self._store = store
        self._storage = storage
        self._length_s = length_s
        self._host = host or socket.gethostname()
        self._is_left = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="lease", daemon=True)
        self.owner = f"{self._host}:{me.pid}:{me.create_time():.0f}"
        """Host, process and when that was started, as the study's row names them."""

    def __enter__(self) -> "Lease":
        row = self._store.row()
        previous = None if row is None else row.owner
        beat = None
        if row is not None and previous is not None:
            if _host_of(previous) != self._host:
                beat = self._watch(row, previous)
            elif _lives(previous):
                raise _refusal(previous, "its process is there")
        if not self._store.claim(self.owner, previous, beat=beat):
            raise StoreError(
                "the study was claimed by another process just now",
                hint="tuner status shows who runs it; wait for it to end, then run the same command again",
            )
        if self._storage is not None:
            self._storage.belongs_to(self._store.study_id, self.owner)
        self._beating.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_left.set()
        self._beating.join(timeout=1.0)
        # Where the database is away, or another process has the study, there is nothing to give up.
        with suppress(StoreError, SQLAlchemyError):
            self._store.release(self.owner)

    def _watch(self, row: StudyRow, owner: str) -> int:
        """The beat at which an owner elsewhere has stood still for a whole lease. Raises StoreError once it moves."""
        host, pid, _ = owner.rsplit(":", 2)
        log.warning(
            "the study is held by process %s on %s; waiting up to %.0f s to see whether that lives",
            pid,
            host,
            self._length_s,
        )
        began_s = time.monotonic()
        while time.monotonic() - began_s < self._length_s:
            time.sleep(self._length_s / LOOKS)
            now = self._store.row()
            if now is not None and (now.owner, now.beat) != (owner, row.beat):
                after_s = time.monotonic() - began_s
                raise _refusal(now.owner or owner, f"it gave a sign of life {after_s:.0f} s later")
        return row.beat

    def _beat(self) -> None:
        """Say that this process lives, until the lease is left or lost; a database that is away hears it later."""
        while not self._is_left.wait(self._length_s / BEATS):
            try:
                is_held = self._store.beat(self.owner)
            except (StoreError, SQLAlchemyError) as error:
                log.info("the lease could not be renewed: %s", error)
                continue
            if not is_held:
                return  # the next write says so, where it matters


def _host_of(owner: str) -> str:
    return owner.rsplit(":", 2)[0]


def _lives(owner: str) -> bool:
    """Whether a process of this host is there; another one may have its number by now."""
    _, pid, created = owner.rsplit(":", 2)
    try:
        return f"{psutil.Process(int(pid)).create_time():.0f}" == created
    except psutil.NoSuchProcess:
        return False


def _refusal(owner: str, sign: str) -> StoreError:
    host, pid, created = owner.rsplit(":", 2)
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(created)))
    return StoreError(
        f"the study is being run by process {pid} on {host}, started {since}: {sign}",
        hint=f"wait for it, or stop it there (kill {pid}); tuner status shows how far it is",
    )
