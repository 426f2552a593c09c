"""The part of scale.py about slots: the trials of one study on so many servers, under Ray, kept in PostgreSQL.

A real cluster (cluster.py), a real database (postgres.py), `tuner run` as one types it, and servers that sleep instead of
thinking (loopback.py). What counts is the stretch in which all slots have been taken and all workers are warm.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import ExitStack
from contextlib import contextmanager
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import psutil
from postgres import binaries
from postgres import postgres

HERE = Path(__file__).parent
SLOTS = (1, 2, 4, 8, 16)
PER_SLOT = 6
"""Trials that each slot runs while it is measured, about."""

TRIAL_S = 2.0
"""What the servers alone take for a trial."""

LOOPBACK_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""As cluster.py has it: a driver that takes the cluster for one machine does not reach the others."""

GOAL = 0.9
"""Speed-up by slots at least, as a share of them."""

SPACE = """\
format_version: 1
name: slots
workflows:
  cot: {few_shot: {low: 0, high: 8}, max_tokens: {low: 16, high: 516}}
"""
STUDY = """\
format_version: 1
name: NAME
task: {name: villages, examples: CALLS, holdout: 0}
search_space: space.yaml
models: {sleeper: {model: openai/loopback, endpoints: [ENDPOINTS]}}
objectives: [accuracy, latency_p50_s]
sampler: {name: SAMPLER, seed: 1}
budget: {trials: 4000}
executor: {ray: {address: "ADDRESS", num_cpus: 0.01}}
storage: STORAGE
"""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """Trials of one shape, proposed by one sampler."""

    sampler: str
    calls: int
    repeats: int
    slots: Sequence[int] = SLOTS

    @property
    def name(self) -> str:
        """As results have it."""
        return f"{self.sampler}, {self.calls} calls of {TRIAL_S / self.calls:g} s"


KINDS = (Kind("tpe", 2, 2), Kind("tpe", 10, 2))
"""The first shows what trials cost their driver; of the second, with five times as many calls, whether the workers' share fits
into this machine as well."""

QUICK = (Kind("tpe", 10, 1, (1, 2)),)


def speedup(quick: bool, say: Say) -> dict[str, Any]:
    """Trials a second on so many slots, in turns, over those on one; the median of the repeats."""
    if binaries() is None:
        say("PostgreSQL's programs are not installed: skipped")
        return {}
    kinds = QUICK if quick else KINDS
    found: dict[str, Any] = {}
    with _Place(most=max(max(kind.slots) for kind in kinds)) as place:
        for kind in kinds:
            rounds = [
                {slots: place.measure(kind, slots, quick, say) for slots in kind.slots}
                for _ in range(kind.repeats)
            ]
            found[kind.name] = _summary(kind, rounds)
            say(f"{kind.name}: {found[kind.name]['speedup']}")
    return {"slots": found}


def _summary(kind: Kind, rounds: Sequence[Mapping[int, Mapping[str, Any]]]) -> dict[str, Any]:
    ratios = {
        slots: [each[slots]["trials_per_s"] / each[1]["trials_per_s"] for each in rounds]
        for slots in kind.slots
    }
    medians = {slots: round(statistics.median(each), 3) for slots, each in ratios.items()}
    return {
        "speedup": {str(slots): median for slots, median in medians.items()},
        "share_of_slots": {str(slots): round(m / slots, 3) for slots, m in medians.items()},
        "is_met": all(median >= GOAL * slots for slots, median in medians.items()),
        "rounds": [{str(slots): dict(each) for slots, each in one.items()} for one in rounds],
    }


class _Place:
    """A cluster, a database and servers, for all studies."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._made = 0

    def __enter__(self) -> "_Place":
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self._database = stack.enter_context(postgres())
            self._cluster, self._address = stack.enter_context(_cluster())
            self._servers: dict[float, list[tuple[psutil.Process, str]]] = {}
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def measure(self, kind: Kind, slots: int, quick: bool, say: Say) -> dict[str, Any]:
        """One study, from `tuner run` to its end."""
        self._made += 1
        delay_s = TRIAL_S / kind.calls
        if delay_s not in self._servers:
            self._servers[delay_s] = [
                self._stack.enter_context(_server(delay_s)) for _ in range(self._most)
            ]
        servers = self._servers[delay_s][:slots]
        study = self._write(kind, [address for _, address in servers])
        watch = _Watch(slots, slots * (2 if quick else PER_SLOT), kind.calls)
        command = [str(Path(sys.executable).parent / "tuner"), "run", str(study), "--json"]
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # Ray shows its stack when it hears of the end
            text=True,
            env={**os.environ, **LOOPBACK_ALONE},
        ) as run:
            assert run.stdout is not None
            family = _Family(run.pid, self._cluster, [server for server, _ in servers])
            for line in run.stdout:
                watch.hear(json.loads(line), time.perf_counter(), family)
                if watch.is_over:
                    run.terminate()
                    break
            run.stdout.read()
        if not watch.is_over:
            raise RuntimeError(f"tuner run ended early: {watch.said}")
        result = watch.result()
        say(
            f"{kind.name}, {slots} slots: {result['trials_per_s']:.3f} trials/s, "
            f"{100 * result['of_servers']:.0f} % of what the servers allow, "
            f"cpu {result['cpu_s_per_trial']}, others {result['others_cores']} cores"
        )
        return result

    def _write(self, kind: Kind, addresses: Sequence[str]) -> Path:
        folder = self._folder / str(self._made)
        folder.mkdir()
        ends = ", ".join(f'{{api_base: "{address}"}}' for address in addresses)
        given = {
            "NAME": f"slots-{self._made}",
            "CALLS": kind.calls,
            "ENDPOINTS": ends,
            "SAMPLER": kind.sampler,
            "ADDRESS": self._address,
            "STORAGE": self._database.make_database(f"slots{self._made}"),
        }
        text = STUDY
        for word, value in given.items():
            text = text.replace(word, str(value), 1)
        (folder / "space.yaml").write_text(SPACE)
        (folder / "study.yaml").write_text(text)
        return folder / "study.yaml"


@contextmanager
def _server(delay_s: float) -> Iterator[tuple[psutil.Process, str]]:
    command = [sys.executable, str(HERE / "loopback.py"), "--delay-s", str(delay_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            address = json.loads(server.stdout.readline())["api_base"]
            yield psutil.Process(server.pid), address
        finally:
            server.terminate()


@contextmanager
def _cluster() -> Iterator[tuple[psutil.Process, str]]:
    """A head and one machine, whose one CPU has room for a hundred workers."""
    command = [sys.executable, str(HERE / "cluster.py")]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
    ) as cluster:
        assert cluster.stdin is not None
        assert cluster.stdout is not None
        address = json.loads(cluster.stdout.readline())["address"]
        cluster.stdin.write(json.dumps({"add": {"num_cpus": 1}}) + "\n")
        cluster.stdin.flush()
        cluster.stdout.readline()
        try:
            yield psutil.Process(cluster.pid), address
        finally:
            cluster.stdin.close()
            cluster.wait()


class _Family:
    """The processes of one run, by what they do, and the CPU time that they have had."""

    def __init__(self, driver: int, cluster: psutil.Process, servers: list[psutil.Process]) -> None:
        ours = psutil.Process().children()
        self._roots = {
            "driver": [psutil.Process(driver)],
            "ray": [cluster],
            "database": [each for each in ours if each.name() == "postgres"],
            "servers": servers,
        }
        self._known: dict[str, dict[int, psutil.Process]] = {}
        self.look()

    def look(self) -> None:
        """Find processes that are new."""
        for name, roots in self._roots.items():
            for each in [*roots, *(c for root in roots for c in root.children(recursive=True))]:
                with suppress(psutil.Error):
                    is_worker = name == "ray" and each.cmdline()[0].startswith("ray::Worker")
                    part = "workers" if is_worker else name
                    self._known.setdefault(part, {}).setdefault(each.pid, each)

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far; of the whole machine as well."""
        found = {}
        for name, processes in self._known.items():
            found[name] = 0.0
            for each in processes.values():
                with suppress(psutil.Error):
                    times = each.cpu_times()
                    found[name] += times.user + times.system
        whole = psutil.cpu_times()
        found["machine"] = sum(whole) - whole.idle - whole.iowait - whole.guest - whole.guest_nice
        return found


@dataclass(slots=True)
class _Mark:
    """How far a run was, and what it had cost."""

    time_s: float
    questions: int
    cpu_s: Mapping[str, float]


@dataclass(slots=True)
class _Watch:
    """What is heard of one run."""

    slots: int
    wanted: int
    """Trials that are to be measured."""
    calls: int
    said: str = ""
    _under_way: dict[int, float] = field(default_factory=dict)
    _first: set[int] = field(default_factory=set)
    """Trials that were under way when all slots were taken for the first time; a worker's first one may be among them."""
    _was_full: bool = False
    _questions: int = 0
    _began: _Mark | None = None
    _ended: _Mark | None = None
    _passes_s: list[float] = field(default_factory=list)
    _gaps_s: list[float] = field(default_factory=list)
    _ends_s: list[float] = field(default_factory=list)

    def hear(self, line: Mapping[str, Any], now_s: float, family: _Family) -> None:
        """An event, and when it came."""
        match line["event"]:
            case "message":
                self.said += line["text"] + "\n"
            case "pass_started":
                self._start(line["trial"], now_s, family)
            case "question_finished":
                self._questions += 1
                if line["error"] is not None:
                    raise RuntimeError(f"a question failed: {line['error']}")
            case "pass_ended":
                self._end(line["trial"], now_s, family)

    def _start(self, trial: int, now_s: float, family: _Family) -> None:
        self._under_way[trial] = now_s
        if self._ends_s:
            self._gaps_s.append(now_s - self._ends_s.pop(0))
        if len(self._under_way) == self.slots and not self._was_full:
            self._was_full = True
            self._first = set(self._under_way)
        if self._began is None or self.is_over:
            return
        if self._questions - self._began.questions >= self.wanted * self.calls:
            self._ended = _Mark(now_s, self._questions, family.cpu_s())

    def _end(self, trial: int, now_s: float, family: _Family) -> None:
        began_s = self._under_way.pop(trial)
        if self._began is not None:
            self._passes_s.append(now_s - began_s)
            self._ends_s.append(now_s)
        self._first.discard(trial)
        if self._was_full and not self._first and self._began is None:
            family.look()
            self._began = _Mark(now_s, self._questions, family.cpu_s())

    @property
    def is_over(self) -> bool:
        """Whether enough was heard."""
        return self._ended is not None

    def result(self) -> dict[str, Any]:
        """Throughput while all slots were in use, and where time and CPU went meanwhile."""
        assert self._began is not None
        assert self._ended is not None
        seconds = self._ended.time_s - self._began.time_s
        trials = (self._ended.questions - self._began.questions) / self.calls
        used = {
            name: self._ended.cpu_s[name] - self._began.cpu_s.get(name, 0.0)
            for name in self._ended.cpu_s
        }
        machine = used.pop("machine")
        return {
            "trials_per_s": round(trials / seconds, 4),
            # No more than the speed-up's share of the slots, as one slot does no more than its server allows.
            "of_servers": round(trials / seconds * TRIAL_S / self.slots, 3),
            "trials": round(trials, 1),
            "seconds": round(seconds, 2),
            "pass_s": round(statistics.median(self._passes_s), 3),
            "gap_s": round(statistics.median(self._gaps_s), 3) if self._gaps_s else None,
            "cpu_s_per_trial": {name: round(s / trials, 3) for name, s in sorted(used.items())},
            "cores": round(sum(used.values()) / seconds, 2),
            "others_cores": round((machine - sum(used.values())) / seconds, 2),
        }
