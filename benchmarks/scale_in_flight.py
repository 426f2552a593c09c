"""The part of scale.py about agent runs in one process: 1, 100 and 1,000 of them in flight, against a server in another.

Each is a study of one trial, run in a process of its own as `tuner run` would run it, database and all: ReAct agents that take five
steps, each a call of a model and a search. Against a server that answers at once, what counts is calls a second, which the
process's own work bounds; against one that takes as long as busy ones do, whether replies wait for the process.
"""

import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.spec import load_study
from tuner.store import Store
from tuner.study import run_study

HERE = Path(__file__).parent
REPLY = "search[Page 7]"
STEPS = 5
PAGES = 200

SPACE = f"""\
format_version: 1
name: in-flight
workflows:
  react: {{few_shot: 2, max_steps: {STEPS}, thoughts: false, max_tokens: 24}}
"""
STUDY = """\
format_version: 1
name: in-flight
task: {{name: jsonl, path: q.jsonl, documents: pages.jsonl, demonstrations: shown.jsonl, examples: {questions}, holdout: 0}}
search_space: space.yaml
models: {{loopback: {{model: openai/loopback, api_base: "{api_base}", endpoint: {endpoint}, timeout_s: 600}}}}
objectives: [accuracy, latency_p50_s]
load: {{concurrency: {in_flight}}}
sampler: {{name: random, seed: 1}}
budget: {{trials: 1}}
storage: sqlite:///tuner.db
"""
FILES_BESIDE = 200
"""Open files that a process needs for other things than connections to the server."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Load:
    """So many agent runs, against a server that takes so long."""

    in_flight: int
    questions: int
    delay_s: float = 0.0
    endpoint: str = "chat"

    @property
    def name(self) -> str:
        """As results have it."""
        at = "at once" if not self.delay_s else f"after {self.delay_s:g} s"
        return f"{self.in_flight} in flight, {self.endpoint}, answered {at}"


LOADS = (
    Load(1, 100),
    Load(100, 600),
    Load(1000, 2000),
    Load(1000, 2000, endpoint="completion"),
    Load(1, 3, delay_s=10.0),
    Load(100, 200, delay_s=10.0),
    Load(1000, 2000, delay_s=20.0),
)
QUICK = (Load(1, 10), Load(50, 100))


def in_flight(quick: bool, say: Say) -> dict[str, Any]:
    """Every load in turn, once: each is thousands of calls."""
    found = {}
    for load in QUICK if quick else LOADS:
        found[load.name] = _measure(load)
        say(f"{load.name}: {found[load.name]}")
    return {"in_flight": found}


def _measure(load: Load) -> dict[str, Any]:
    """One study, in a process that does nothing else."""
    command = [sys.executable, str(HERE / "loopback.py"), "--text", REPLY]
    command += ["--delay-s", str(load.delay_s)]
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, preexec_fn=_raise_limit
        ) as server,
    ):
        try:
            assert server.stdout is not None
            api_base = json.loads(server.stdout.readline())["api_base"]
            process = context.Process(target=_run, args=(Path(folder), load, api_base, there))
            process.start()
            there.close()
            try:
                result: dict[str, Any] = here.recv()
            except EOFError:
                raise RuntimeError(f"{load.name}: the run failed") from None
            process.join()
        finally:
            server.terminate()
    return result


def _raise_limit() -> None:
    """A connection is an open file, and many systems allow 1,024 unless asked for more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _run(folder: Path, load: Load, api_base: str, connection: Any) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < load.in_flight + FILES_BESIDE:
        _raise_limit()
    study = _write(folder, load, api_base)
    before_mib = _peak_mib()
    began_s = time.perf_counter()
    run_study(study)
    took_s = time.perf_counter() - began_s
    with closing(Store.open(study.storage_url, study.spec.name)) as store:
        (trial,) = store.trials()
        (sitting,) = store.passes(trial.trial_id, "search")
        runs = store.runs(trial.trial_id, "search")
    calls = sum(run.llm_calls for run in runs)
    report = sitting.load
    lag = report["loop_lag_s"] or {}
    connection.send(
        {
            "runs": len(runs),
            "calls": calls,
            "failed": sum(run.error is not None for run in runs) + load.questions - len(runs),
            "calls_per_s": round(calls / report["span_s"], 1),
            "seconds": round(report["span_s"], 2),
            "under_way_mean": round(report["under_way_mean"], 1),
            "peak_mib": round(_peak_mib(), 1),
            "peak_mib_before": round(before_mib, 1),
            "cpu_ms_per_call": round(1000 * report["cpu_share"] * report["span_s"] / calls, 2),
            "whole_s": round(took_s, 2),
            "loop_lag_p50_s": lag.get("p50_s"),
            "loop_lag_p95_s": lag.get("p95_s"),
            "cpu_share": round(report["cpu_share"], 3),
            "client_limited": report["reason"],
        }
    )


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _write(folder: Path, load: Load, api_base: str) -> Any:
    rows: dict[str, list[dict[str, Any]]] = {
        "q.jsonl": [
            {"id": f"q{n}", "question": f"Where is page {n}?", "answer": "Elm"}
            for n in range(load.questions)
        ],
        "pages.jsonl": [
            {"title": f"Page {n}", "text": f"It is page {n}. It stands in Elm."}
            for n in range(PAGES)
        ],
        "shown.jsonl": [
            {
                "question": f"Where is {n}?",
                "answer": "Oak",
                "reasoning": "It is in Oak.",
                "steps": [{"thought": "I know.", "tool": "finish", "argument": "Oak"}],
            }
            for n in range(4)
        ],
    }
    for name, lines in rows.items():
        (folder / name).write_text("\n".join(map(json.dumps, lines)))
    (folder / "space.yaml").write_text(SPACE)
    (folder / "study.yaml").write_text(
        STUDY.format(
            questions=load.questions,
            api_base=api_base,
            endpoint=load.endpoint,
            in_flight=load.in_flight,
        )
    )
    return load_study(folder / "study.yaml")
