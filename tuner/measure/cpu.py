"""Energy estimate of a server on the CPU: its processes' CPU-seconds × watts per busy core.

Apart from the counters because it measures work, not energy: it compares configs on one machine, and its
source stands beside every figure so that nobody reads it as more.
"""

import time
from pathlib import Path

import psutil
from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

from tuner.errors import UserError
from tuner.measure.meter import Meter
from tuner.measure.meter import MeterKind
from tuner.measure.meter import Sample

# A busy server core takes some 4 to 8 W (200 to 350 W over 32 to 64 of them), a busy desktop core 8 to 15 W (65 to
# 125 W over 8). 10 is the middle, memory included: right to a factor of two, and the same factor for every config.
WATTS_PER_CORE = 10.0

TICK_S = 0.01
"""How often the kernel counts CPU time."""

SEARCH_SHARE = 0.001
"""Of the time, how much goes into looking for processes that the server has started since."""

_TRIES = 5


class CpuEstimate(BaseModel):
    """What a busy core is taken to draw."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    watts_per_core: float = Field(
        default=WATTS_PER_CORE, gt=0, allow_inf_nan=False, description="for one busy core"
    )


class CpuEstimateSpec(MeterKind):
    """CPU-seconds of a server that the study starts itself × watts: `cpu_estimate: {watts_per_core: 10.0}`."""

    cpu_estimate: CpuEstimate

    def open(self, *, pid: int | None, base: Path) -> Meter:
        """A meter of the server. Raises UserError where the study starts none."""
        if pid is None:
            raise UserError(
                "meter: cpu_estimate needs a server that the study starts, and this model's is reached by address",
                hint="use `serve:` for the model, or meter its GPUs with `nvml:`, or set `meter: none`",
            )
        return CpuMeter(pid, watts_per_core=self.cpu_estimate.watts_per_core)


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
            self._tree = _Tree(psutil.Process(pid))
            self._tree.cpu_s(time.perf_counter())
        except psutil.Error as error:
            raise UserError(
                f"meter: cpu_estimate of process {pid}: {error}",
                hint="has the server ended? The end of its log says why; else run as the user who owns it",
            ) from None

    def read(self) -> Sample:
        """Joules since the server started."""
        now_s = time.perf_counter()
        try:
            return Sample(now_s, self._tree.cpu_s(now_s) * self._watts_per_core)
        except psutil.Error as error:
            return Sample(now_s, None, f"the server's CPU time cannot be read: {error}")


class _Tree:
    """A process and its descendants.

    Finding them takes milliseconds where a machine has many processes or a server many threads, reading them
    microseconds: they are looked for as often as SEARCH_SHARE allows. The time of one that started and ended in
    between is its parent's by then; one that started and goes on counts from when it is found, with all its time.
    """

    def __init__(self, server: psutil.Process) -> None:
        self._server = server
        self._descendants: list[psutil.Process] = []
        self._search_s = 0.0

    def cpu_s(self, now_s: float) -> float:
        """CPU-seconds of the process, its descendants, and those of them that were waited for.

        Parents are read before children: one that ends in between is then missing rather than counted twice,
        and a missing one is a reason to look again. Raises psutil.Error.
        """
        tries = _TRIES
        while True:
            if now_s >= self._search_s:
                self._search(now_s)
            with self._server.oneshot():
                if self._server.status() == psutil.STATUS_ZOMBIE:
                    raise psutil.NoSuchProcess(self._server.pid, msg="the process has ended")
                times = [self._server.cpu_times()]
            try:
                times += [process.cpu_times() for process in self._descendants]
            except psutil.NoSuchProcess:
                tries -= 1
                if tries == 0:
                    raise
                self._search_s = now_s
                continue
            return sum(t.user + t.system + t.children_user + t.children_system for t in times)

    def _search(self, now_s: float) -> None:
        before_s = time.thread_time()
        if not self._server.is_running():  # its number may be another's by now
            raise psutil.NoSuchProcess(self._server.pid, msg="the process has ended")
        self._descendants = _descendants(self._server)
        self._search_s = now_s + (time.thread_time() - before_s) / SEARCH_SHARE


def _descendants(server: psutil.Process) -> list[psutil.Process]:
    """All below a process, parents first. Raises psutil.Error."""
    found: list[psutil.Process] = []
    waiting = [server.pid]
    try:
        while waiting:
            children = [pid for parent in waiting for pid in _children(parent)]
            for pid in children:
                try:
                    found.append(psutil.Process(pid))
                except psutil.NoSuchProcess:  # ended meanwhile: its time is its parent's
                    continue
            waiting = children
    except OSError:
        # One has just ended, or this kernel lists no children: all processes of the machine are asked for their parent.
        return server.children(recursive=True)
    return found


def _children(pid: int) -> list[int]:
    """Children of all threads of a process, as Linux lists them. Raises OSError."""
    children: list[int] = []
    folder = Path(f"/proc/{pid}/task")
    for thread in folder.iterdir():
        try:
            children += map(int, (thread / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            if thread.exists():  # then it is the list that is missing
                raise
    return children
