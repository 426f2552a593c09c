"""Energy estimate of a server on the CPU: its processes' CPU-seconds × watts per busy core.

Apart from the counters because it measures work, not energy: it compares configs on one machine, and its
source stands beside every figure so that nobody reads it as more.
"""

import time

import psutil

from tuner.errors import UserError
from tuner.measure import WATTS_PER_CORE
from tuner.measure import Sample

TICK_S = 0.01
"""How often the kernel counts CPU time."""

_TRIES = 5


class CpuMeter:
    """Meters one process of this machine and all below it, those that have ended included.

    The kernel counts CPU time in ticks of 10 ms. Raises UserError when there is no such process.
    """

    source = "cpu-estimate"
    tick_s = TICK_S
    devices = ()

    def __init__(self, pid: int, *, watts_per_core: float = WATTS_PER_CORE) -> None:
        self.scope = f"server process {pid} at {watts_per_core:g} W per busy core"
        self._watts_per_core = watts_per_core
        try:
            self._server = psutil.Process(pid)
            _cpu_s(self._server)
        except psutil.Error as error:
            raise UserError(f"meter: cpu_estimate of process {pid}: {error}") from None

    def read(self) -> Sample:
        """Joules since the server started."""
        now_s = time.perf_counter()
        try:
            return Sample(now_s, _cpu_s(self._server) * self._watts_per_core)
        except psutil.Error as error:
            return Sample(now_s, None, f"the server's CPU time cannot be read: {error}")


def _cpu_s(server: psutil.Process) -> float:
    """CPU-seconds of a process, its descendants, and those of them that were waited for.

    Parents are read before children: one that ends in between is then missing rather than counted twice,
    and a missing one is a reason to read again. Raises psutil.Error.
    """
    tries = _TRIES
    while True:
        if server.status() == psutil.STATUS_ZOMBIE:
            raise psutil.NoSuchProcess(server.pid, msg="the process has ended")
        descendants = server.children(recursive=True)  # raises when the pid is another's by now
        times = [server.cpu_times()]
        try:
            times += [process.cpu_times() for process in descendants]
        except psutil.NoSuchProcess:
            tries -= 1
            if tries == 0:
                raise
            continue
        return sum(t.user + t.system + t.children_user + t.children_system for t in times)
