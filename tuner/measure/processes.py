"""Who computes on a GPU: apart from its counter, because a count says nothing of whose the joules are.

Those who were there when the meter was made, the server among them, may stay; so may whatever they or the study
itself start. Anybody else makes the joules not the study's own. In a container, NVML may list processes by
numbers of another namespace, or none: then only newcomers are noticed, or nobody.
"""

import os
from collections.abc import Sequence
from typing import Any

import psutil

from tuner.errors import UserError


class UnseenError(Exception):
    """The driver does not say who computes there."""


class Processes:
    """The processes that compute on one GPU; `pid` is the server's when we started it. Raises UnseenError."""

    def __init__(self, uuid: str, handle: Any, *, pid: int | None = None) -> None:
        self.uuid = uuid
        self._handle = handle
        self.at_start = self._pids()
        self._accepted = set(self.at_start)
        self._roots = {os.getpid(), *self.at_start} | ({pid} if pid is not None else set())

    def foreign(self) -> str | None:
        """A newcomer that neither the study nor its server started, in words; None where there is none."""
        try:
            new = self._pids() - self._accepted
        except UnseenError:  # the counter will say what has happened to the driver
            return None
        strangers = sorted(pid for pid in new if not descends(pid, self._roots))
        self._accepted |= new.difference(strangers)
        return f"process {named(strangers[0])} computes on {self.uuid}" if strangers else None

    def _pids(self) -> frozenset[int]:
        import pynvml

        try:
            running = pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except pynvml.NVMLError as error:
            raise UnseenError(str(error)) from None
        return frozenset(process.pid for process in running)


def require_alone(gpus: Sequence[Processes], pid: int | None) -> None:
    """Raises UserError where others compute on these GPUs beside our server, whose process is `pid`.

    Says nothing where the server is not recognised on any of them: their processes may then be numbered otherwise.
    """
    if pid is None or not any(descends(each, {pid}) for gpu in gpus for each in gpu.at_start):
        return
    for gpu in gpus:
        for each in sorted(gpu.at_start):
            if not descends(each, {pid, os.getpid()}):
                raise UserError(
                    f"meter: nvml: process {named(each)} computes on {gpu.uuid} as well, so that its energy is not "
                    f"the server's alone (process {pid})",
                    hint="stop it, serve the model on another GPU, or name the server's GPUs alone",
                )


def named(pid: int) -> str:
    """A process as people know it: `4711 (python)`."""
    try:
        return f"{pid} ({psutil.Process(pid).name()})"
    except psutil.Error:
        return str(pid)


def descends(pid: int, roots: set[int]) -> bool:
    """Whether a process is one of these, or below one."""
    try:
        return pid in roots or any(parent.pid in roots for parent in psutil.Process(pid).parents())
    except psutil.Error:
        return False
