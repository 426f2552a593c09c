"""SIGTERM, as machines send it that are about to be taken away: what is under way may come to its end, and is kept.

Apart from `study`, because it is the only thing that it does with signals.
"""

import asyncio
import signal
import sys
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from tuner.errors import UserError
from tuner.events import Report
from tuner.events import Talk
from tuner.executors import Executor

GRACE_S = 20.0
"""For questions under way: Kubernetes gives 30 s in all by default, spot machines 30 s to 2 minutes."""

LOOK_S = 0.05

STATUS = 128 + signal.SIGTERM


class Termination:
    """Hears of SIGTERM while the block lasts; ends the process with its status where it came."""

    def __init__(self, report: Report, *, grace_s: float = GRACE_S) -> None:
        self._report = report
        self._grace_s = grace_s
        self._is_asked = False
        self._ending: asyncio.Task[None] | None = None

    def watch(self, executor: Executor) -> None:
        """From now on, on this loop: SIGTERM has the executor begin nothing more, and then cancels the current task."""
        if threading.current_thread() is not threading.main_thread():
            return
        loop, current = asyncio.get_running_loop(), asyncio.current_task()
        assert current is not None

        def end() -> None:
            if self._is_asked:  # a second one does not wait
                current.cancel()
                return
            self._is_asked = True
            executor.stop()
            self._ending = loop.create_task(self._end_after_grace(executor, current))
            said = (
                f"asked to end (SIGTERM): questions under way have {self._grace_s:g} s; "
                "the same command goes on from there"
            )
            with suppress(UserError):  # who listens no more is not told, and it ends all the same
                self._report(Talk(said))

        loop.add_signal_handler(signal.SIGTERM, end)

    async def _end_after_grace(self, executor: Executor, current: "asyncio.Task[None]") -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._grace_s
        while executor.is_busy() and loop.time() < until_s:
            await asyncio.sleep(LOOK_S)
        current.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_asked and isinstance(error, asyncio.CancelledError):
            sys.exit(STATUS)
