"""SIGTERM while nobody listens any more; with listeners and real runs it is in test_study and in tests/faults."""

import asyncio
import os
import signal
from typing import Any

import pytest

from tuner.errors import UserError
from tuner.termination import STATUS
from tuner.termination import Termination


class Busy:
    """As much of an executor as is asked: it is busy until it is stopped."""

    def __init__(self) -> None:
        self.is_stopped = False

    def stop(self) -> None:
        self.is_stopped = True

    def is_busy(self) -> bool:
        return not self.is_stopped


def test_it_ends_though_whoever_listened_has_gone(caplog: pytest.LogCaptureFixture) -> None:
    def report(event: object) -> None:
        raise UserError("whoever read the events has closed the pipe", hint="go on")

    async def run(termination: Termination) -> None:
        executor: Any = Busy()
        termination.watch(executor)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(10)

    with (
        pytest.raises(SystemExit) as ended,
        Termination(report, grace_s=5.0) as termination,
    ):
        asyncio.run(run(termination))
    assert ended.value.code == STATUS
    assert not caplog.records  # of what callbacks raise, asyncio writes a log
