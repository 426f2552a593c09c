"""How the tuner holds up when much of everything is asked of it: many trials, many runs, for long.

Parts, each of which may be run alone (`--part`):

verbs   A study of 10,000 trials with 100 example runs each, on SQLite and on PostgreSQL: wall seconds of `tuner status`,
        `front` and `export` as one types them, seconds until a run that is resumed asks its next question, and bytes per
        example run. Rows are those of the tuner's own tables, drawn from a law in which accuracy, time and energy
        rise with a config's budget, and inserted in bulk. Goal: each verb ≤ 2 s.
memory  10,000 trials of a recorded table, one after another in one process: memory and time of a trial, every so many
        trials, and what of the memory is Optuna's own.
speedup Trials a second on 1, 2, 4, 8 and 16 servers that sleep, 2 s a trial, under Ray with PostgreSQL; who took how much CPU
        time for a trial, and what else the machine did (`scale_slots.py`). Goal: speed-up ≥ 0.9 × slots.
in_flight  1, 100 and 1,000 agent runs in flight in one process against a server in another: calls per second, memory,
        lateness of the event loop (`scale_in_flight.py`). Goal: 1,000, of which none fails.
"""

import argparse
import gc
import json
import multiprocessing
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import closing
from contextlib import contextmanager
from contextlib import suppress
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
import psutil
import sqlalchemy as sa
from postgres import binaries
from postgres import postgres
from scale_in_flight import in_flight
from scale_slots import speedup

from tuner.events import TrialEnded
from tuner.executors.replay import declared
from tuner.objectives import OBJECTIVES
from tuner.samplers import make_sampler
from tuner.spec import LoadedStudy
from tuner.spec import load_study
from tuner.store import Store
from tuner.store import schema
from tuner.store import tables
from tuner.store.codec import pack_trace
from tuner.store.packed import pack
from tuner.study import run_study
from tuner.table import Header
from tuner.table import RecordedConfig
from tuner.table import Row
from tuner.table import Table
from workflows.base import Checkpoint
from workflows.config import AgentConfig
from workflows.config import ModelSettings
from workflows.trace import Span

Floats = npt.NDArray[np.float64]

RESULTS = Path(__file__).parent / "results" / "scale.json"
LOOPBACK = Path(__file__).parent / "loopback.py"

SPACE = """\
format_version: 1
name: scale
workflows:
  direct: {few_shot: {low: 0, high: 8}, max_tokens: {low: 1, high: 600}}
  react: {few_shot: {low: 0, high: 8}, max_steps: {low: 1, high: 64}, max_tokens: {low: 30, high: 230}}
  lats: {few_shot: {low: 0, high: 8}, children: {low: 2, high: 9}, iterations: {low: 1, high: 99}}
"""
STUDY = """\
format_version: 1
name: scale
task: {{name: villages, examples: {examples}, holdout: {holdout}}}
search_space: space.yaml
models: {{small: {{model: openai/loopback, api_base: "{api_base}"}}}}
objectives: [accuracy, latency_p50_s, tokens_total]
sampler: {{name: random, seed: 1}}
budget: {{trials: {trials}}}
storage: {storage}
"""
HOLDOUT = 48
CONFIRMED = 8
"""Trials with holdout runs."""

TRACES = 400
"""Traces that runs share: of each, only its size matters."""

DEALT = 20_000
"""Rows inserted at once."""


def main() -> None:
    """Run the parts, print and record the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=list(PARTS), action="append", help="all, if not said")
    parser.add_argument("--quick", action="store_true", help="small studies; a minute at most")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    say: Say = (lambda text: None) if arguments.json else (lambda text: print(text, flush=True))
    result: dict[str, Any] = {"benchmark": "scale"}
    for part in arguments.part or PARTS:
        result |= PARTS[part](arguments.quick, say)
    result["machine"] = f"{platform.machine()}, Python {platform.python_version()}"
    if not arguments.quick:  # a part that was not run keeps what it found last
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps(known | result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


Say = Callable[[str], None]


# Verbs on a large study


def verbs(quick: bool, say: Say) -> dict[str, Any]:
    """Each verb on each kind of database."""
    trials, examples = (500, 100) if quick else (10_000, 100)
    found: dict[str, Any] = {
        "trials": trials,
        "example_runs": trials * examples,
        "seconds": {},
        "processor_s": {},
        "bytes_per_run": {},
        "resume_s": {},
    }
    for database in ("sqlite", "postgresql"):
        if database == "postgresql" and binaries() is None:
            say("PostgreSQL's programs are not installed: skipped")
            continue
        with tempfile.TemporaryDirectory() as folder, _storage(database, Path(folder)) as url:
            study, size = _write_study(Path(folder), url, trials=trials, examples=examples, say=say)
            found["bytes_per_run"][database] = round(size / (trials * examples))
            out = str(Path(folder) / "best.yaml")
            timed = {
                "status": _seconds("status", str(study.path)),
                "front": _seconds("front", str(study.path)),
                "export": _seconds("export", str(study.path), "--out", out),
            }
            say(f"{database}: wall and processor seconds {timed}")
            found["seconds"][database] = {verb: wall for verb, (wall, _) in timed.items()}
            found["processor_s"][database] = {verb: taken for verb, (_, taken) in timed.items()}
            found["resume_s"][database] = _resume_s(study)
            say(
                f"{database}: resumed after {found['resume_s'][database]:.2f} s, {size / 2**20:.0f} MiB"
            )
    return found


@contextmanager
def _storage(database: str, folder: Path) -> Iterator[str]:
    if database == "sqlite":
        yield "sqlite:///tuner.db"
        return
    with postgres(settings=("shared_buffers=512MB", "max_wal_size=8GB")) as server:
        yield server.make_database("scale")


def _seconds(*arguments: str) -> tuple[float, float]:
    """Wall and processor seconds of the `tuner` beside this Python: medians of 3 runs, after one that warms the disk's cache."""
    command = [str(Path(sys.executable).parent / "tuner"), *arguments]
    walls, processor = [], []
    for _ in range(4):
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True)
        walls.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return round(statistics.median(walls[1:]), 3), round(statistics.median(processor[1:]), 3)


def _resume_s(study: LoadedStudy) -> float:
    """Wall seconds from `tuner run` on a study that has some trials left to the first question that it asks."""
    text = study.path.read_text()
    with subprocess.Popen(
        [sys.executable, str(LOOPBACK)], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        address = json.loads(server.stdout.readline())["api_base"]
        api_base = study.spec.models["small"].model_dump()["api_base"]
        study.path.write_text(text.replace(api_base, address))
        _forget_models(study)
        command = [str(Path(sys.executable).parent / "tuner"), "run", str(study.path), "--json"]
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
            assert run.stdout is not None
            for line in run.stdout:
                if json.loads(line)["event"] == "question_finished":
                    break
            else:
                raise RuntimeError("the run ended before it asked anything")
            taken_s = time.perf_counter() - start
            run.terminate()
        server.terminate()
    study.path.write_text(text)
    return round(taken_s, 3)


def _forget_models(study: LoadedStudy) -> None:
    """Let the models have another address than the rows were written with."""
    engine = schema.make_engine(study.storage_url)
    with engine.begin() as connection:
        connection.execute(sa.update(tables.studies).values(fingerprint={}))
    engine.dispose()


# How the study is filled


def _write_study(
    folder: Path, storage: str, *, trials: int, examples: int, say: Say
) -> tuple[LoadedStudy, int]:
    """A study file and its database with that many finished trials; and the database's bytes."""
    (folder / "space.yaml").write_text(SPACE)
    (folder / "study.yaml").write_text(
        STUDY.format(
            examples=examples,
            holdout=HOLDOUT,
            trials=trials + 10,
            storage=storage,
            api_base="http://127.0.0.1:9/v1",
        )
    )
    study = load_study(folder / "study.yaml")
    start = time.perf_counter()
    storage_ = schema.open_optuna_storage(study.storage_url)
    optuna.create_study(
        study_name=study.spec.name,
        storage=storage_,
        directions=[OBJECTIVES[name].direction for name in study.spec.objectives],
    )
    storage_.engine.dispose()
    with closing(Store.create(study.storage_url, study.spec.name)) as store:
        spec = study.spec.model_dump(mode="json")
        store.register(study.fingerprint(study.load_task()), spec=spec, provenance=_provenance())
    engine = schema.make_engine(study.storage_url)
    _Filling(study, engine, trials=trials).fill()
    size = _size(engine, study)
    engine.dispose()
    say(f"{engine.dialect.name}: {trials * examples:,} runs in {time.perf_counter() - start:.0f} s")
    return study, size


def _size(engine: sa.Engine, study: LoadedStudy) -> int:
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            size = sa.select(sa.func.pg_database_size(sa.func.current_database()))
            return int(connection.execute(size).scalar_one())
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return Path(study.storage_url.removeprefix("sqlite:///")).stat().st_size


def _provenance() -> dict[str, Any]:
    energy = {"source": "nvml-counter", "scope": "GPU-6f1c", "tick_s": 0.1, "gpus": 1}
    settings = {"model": "openai/loopback", "api_base": "http://127.0.0.1:9/v1"}
    model = {"settings": settings, "serve": None, "engine": None, "cache": "shared"}
    return {
        "versions": {"tuner": "0.1.0"},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "models": {"small": {**model, "server": {"answers": "small"}, "energy": energy}},
    }


class _Filling:
    """What finished trials leave in the database: Optuna's rows and ours."""

    def __init__(self, study: LoadedStudy, engine: sa.Engine, *, trials: int) -> None:
        self._study = study
        self._engine = engine
        self._task = study.load_task()
        self._rng = np.random.default_rng(0)
        self._configs = self._draw(trials)
        self._traces = [self._trace() for _ in range(TRACES)]
        self._hardness = self._rng.normal(0, 1.2, len(self._task.search))
        self._run_id = 0

    def _draw(self, trials: int) -> list[AgentConfig]:
        found: dict[str, AgentConfig] = {}
        while len(found) < trials:
            config = self._study.space.draw(self._study.models, self._rng)
            found[config.hash()] = config
        return list(found.values())

    def _trace(self) -> bytes:
        """Of three calls whose prompts repeat each other, as those of agents do."""
        words = ["village", "miller", "search", "where", "mayor", "river", "oak", "born"]
        words += [f"{number:x}" for number in self._rng.integers(0, 4096, 60)]
        prompt = " ".join(self._rng.choice(words, size=500))
        steps = [" ".join(self._rng.choice(words, size=25)) for _ in range(6)]
        spans = []
        for step in range(3):
            said = " ".join(steps[: 2 * step])
            times = sorted(self._rng.random(2) + step)
            spans += [
                Span(
                    "llm", "small", *times, f"{prompt} {said}", steps[2 * step], 0.1, 700, 30, 600
                ),
                Span("tool", "search", times[1], step + 1.5, steps[2 * step], steps[2 * step + 1]),
            ]
        checkpoints = tuple(Checkpoint(step, "Elm", 2 * step, 1.0 * step) for step in (1, 2, 3))
        samples = tuple((0.1 * tick, 30.0 * tick) for tick in range(8))
        return pack_trace(tuple(spans), checkpoints, samples)

    def fill(self) -> None:
        """All of it, some trials at a time."""
        together = max(1, DEALT // len(self._task.search))
        for first in range(0, len(self._configs), together):
            self._fill(range(first, min(first + together, len(self._configs))))
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ANALYZE")
            if (
                self._engine.dialect.name == "postgresql"
            ):  # which numbers rows by what it has dealt itself
                for table in (*_reflected(self._engine).values(), tables.example_runs):
                    (key,) = table.primary_key
                    connection.exec_driver_sql(
                        f"SELECT setval(pg_get_serial_sequence('{table.name}', '{key.name}'), "
                        f"(SELECT coalesce(max({key.name}), 1) FROM {table.name}))"
                    )

    def _fill(self, numbers: range) -> None:
        optuna_tables = _reflected(self._engine)
        dealt: dict[sa.Table, list[dict[str, Any]]] = {
            each: []
            for each in (
                *optuna_tables.values(),
                tables.trials,
                tables.example_runs,
                tables.traces,
                tables.totals,
                tables.columns,
                tables.passes,
            )
        }
        for number in numbers:
            self._trial(number, dealt, optuna_tables)
        with self._engine.begin() as connection:
            for table, rows in dealt.items():
                _insert(connection, table, rows)

    def _trial(
        self, number: int, dealt: dict[sa.Table, list[dict[str, Any]]], of: Mapping[str, sa.Table]
    ) -> None:
        config, trial_id = self._configs[number], number + 1
        amounts = self._amounts(config, len(self._task.search))
        values = {
            "accuracy": float(amounts[:, 0].mean()),
            "latency_p50_s": float(np.median(amounts[:, 1])),
            "tokens_total": float(_tokens(amounts).mean()),
        }
        now = datetime.now(UTC).replace(tzinfo=None)
        trial = {"trial_id": trial_id, "number": number, "study_id": 1, "state": "COMPLETE"}
        dealt[of["trials"]].append({**trial, "datetime_start": now, "datetime_complete": now})
        for place, value in enumerate(values.values()):
            row = {"trial_id": trial_id, "objective": place, "value": value, "value_type": "FINITE"}
            dealt[of["trial_values"]].append(row)
        attribute = {"trial_id": trial_id, "key": "constraints", "value_json": "[0.0]"}
        dealt[of["trial_system_attributes"]].append(attribute)
        workflows = sorted(self._study.space.workflows)  # the only choice that is of no number
        for name, value in self._study.space.flat(config, self._study.models).items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            distribution: optuna.distributions.BaseDistribution = (
                optuna.distributions.IntDistribution(0, 1000)
                if is_number
                else optuna.distributions.CategoricalDistribution(workflows)
            )
            dealt[of["trial_params"]].append(
                {
                    "trial_id": trial_id,
                    "param_name": name,
                    "param_value": float(value) if is_number else float(workflows.index(value)),
                    "distribution_json": optuna.distributions.distribution_to_json(distribution),
                }
            )
        dealt[tables.trials].append(
            {
                "trial_id": trial_id,
                "config": config.model_dump(),
                "config_hash": config.hash(),
                "objectives": values,
                "feasible": True,
                "is_derived_from": True,
            }
        )
        rows = self._runs(trial_id, "search", amounts, dealt)
        packed = pack([(row["example_id"], *(row[n] for n in tables.COLUMNS)) for row in rows])
        dealt[tables.columns].append({"trial_id": trial_id, "split": "search", **packed})
        if number < CONFIRMED:
            self._runs(trial_id, "holdout", self._amounts(config, HOLDOUT), dealt)

    def _amounts(self, config: AgentConfig, questions: int) -> Floats:
        """(questions, 3) scores, seconds and joules: what costs more is better, up to a point, and luck is large."""
        knobs = dict(config.params)
        shots = float(knobs["few_shot"])
        rounds = float(knobs.get("max_steps", knobs.get("iterations", 1)))
        width = float(knobs.get("children", 1))
        tokens = float(knobs.get("max_tokens", 100))
        level = {"direct": -1.5, "react": -0.4, "lats": 0.3}[config.workflow]
        level += 0.5 * np.log1p(shots) + 0.35 * np.log(min(rounds, 8)) + 0.2 * np.log(width)
        level -= 0.3 * max(0.0, np.log(40 / tokens)) if config.workflow == "direct" else 0.0
        hardness = (
            self._hardness
            if questions == len(self._hardness)
            else self._rng.normal(0, 1.2, questions)
        )
        reach = level - hardness + 0.8 * self._rng.logistic(size=questions)
        taken = np.minimum(1 + self._rng.poisson(2.0, questions), rounds)
        seconds = 0.05 + 0.02 * shots + taken * width * (0.1 + 0.004 * min(tokens, 100))
        seconds = seconds * np.exp(self._rng.normal(0, 0.15, questions))
        joules = 80 * seconds * np.exp(self._rng.normal(0, 0.1, questions))
        return np.stack([(reach > 0).astype(float), seconds, joules], axis=1)

    def _runs(
        self,
        trial_id: int,
        split: str,
        amounts: Floats,
        dealt: dict[sa.Table, list[dict[str, Any]]],
    ) -> list[dict[str, Any]]:
        """A row for each question, and what is kept up beside them."""
        examples = self._task.search if split == "search" else self._task.holdout
        rows = []
        figures = zip(examples, amounts.tolist(), _tokens(amounts).tolist(), strict=True)
        for example, (score, seconds, joules), tokens in figures:
            self._run_id += 1
            rows.append(
                {
                    "run_id": self._run_id,
                    "trial_id": trial_id,
                    "split": split,
                    "example_id": example.id,
                    "repeat": 0,
                    "answer": "Elm" if score else "Oakham",
                    "score": score,
                    "error": None,
                    "latency_s": seconds,
                    "energy_j": joules,
                    "energy_source": "nvml-counter",
                    "energy_scope": "GPU-6f1c2d3e-0a1b-4c5d-8e9f-102030405060",
                    "energy_problem": None,
                    "energy_s": seconds,
                    "energy_idle_j": 0.3 * joules,
                    "energy_stderr_j": 0.01 * joules,
                    "energy_temperature_c": 61.0,
                    "energy_warning": None,
                    "tokens_in": int(tokens) - 90,
                    "tokens_out": 90,
                    "tokens_cached": 600,
                    "cost_usd": None,
                    "llm_calls": 3,
                    "tool_calls": 3,
                    "llm_s": 0.8 * seconds,
                    "tool_only_s": 0.1 * seconds,
                    "started_s": 1.5 * len(rows),
                    "oracle": False,
                    "window": 0,
                    "reused_s": 0.0,
                    "reused_j": 0.0,
                    "reused_tokens": 0,
                    "reused_usd": 0.0,
                }
            )
            content = self._traces[self._run_id % TRACES]
            dealt[tables.traces].append({"run_id": self._run_id, "content": content})
        dealt[tables.example_runs] += rows
        dealt[tables.totals].append(_totals(trial_id, split, rows))
        sitting = {
            "energy": {"gross_j": amounts[:, 2].sum(), "source": "nvml-counter", "scope": "GPU"}
        }
        content_ = {**sitting, "idle_w": 60.0, "servers": {}, "isolation": {}, "load": {}}
        row = {"trial_id": trial_id, "split": split, "window": 0, "content": content_}
        dealt[tables.passes].append(row)
        return rows


def _tokens(amounts: Floats) -> Floats:
    """Of each answer, in all: prompts of a hundred tokens at least, and more the more was done."""
    return np.asarray(np.floor(800 + 5 * amounts[:, 2]))


def _totals(trial_id: int, split: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the store would have summed up."""
    taken: dict[str, list[float | None]] = {
        "seconds": [row["energy_s"] for row in rows],
        "latency_s": [row["latency_s"] for row in rows],
        "joules": [row["energy_j"] for row in rows],
        "tokens": [row["tokens_in"] + row["tokens_out"] for row in rows],
        "usd": [None for _ in rows],
    }
    sums: dict[str, Any] = {
        "trial_id": trial_id,
        "split": split,
        "runs": len(rows),
        "last_run": rows[-1]["run_id"],
        "last_window": 0,
        "failed": 0,
        "asked": len(rows),
        "energy_source": rows[0]["energy_source"],
    }
    for name, values in taken.items():
        known = [value for value in values if value is not None]
        sums[f"{name}_total"] = sums[f"{name}_spent"] = sum(known)
        sums[f"{name}_known"], sums[f"{name}_unknown"] = len(known), len(values) - len(known)
        sums[f"{name}_dearest"] = max(known, default=0.0)
    return sums


def _reflected(engine: sa.Engine) -> dict[str, sa.Table]:
    metadata = sa.MetaData()
    names = ("trials", "trial_params", "trial_values", "trial_system_attributes")
    return {name: sa.Table(name, metadata, autoload_with=engine) for name in names}


def _insert(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """By COPY where there is one."""
    if not rows:
        return
    if connection.dialect.name != "postgresql":
        connection.execute(sa.insert(table), rows)
        return
    names = list(rows[0])
    cursor = connection.connection.cursor()
    columns = ", ".join(f'"{name}"' for name in names)
    with cursor.copy(f'COPY "{table.name}" ({columns}) FROM STDIN') as copy:  # type: ignore[attr-defined]
        for row in rows:
            copy.write_row([_plain(row[name]) for name in names])


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict) else value


# Memory of a long run

REPLAY_SPACE = """\
format_version: 1
name: replayed
workflows:
  direct: {{few_shot: {{low: 0, high: 8}}, max_tokens: {{low: 1, high: {most}}}}}
"""
QUESTIONS = 4


def memory(quick: bool, say: Say) -> dict[str, Any]:
    """Memory and time of a trial as trials go by, of the whole run and of Optuna alone, each in a process of its own."""
    trials, every = (300, 100) if quick else (10_000, 1_000)
    found = {}
    for name, work in (("run", _replay), ("optuna", _ask_and_tell)):
        with tempfile.TemporaryDirectory() as folder:
            context = multiprocessing.get_context("spawn")
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=work, args=(Path(folder), trials, every, there))
            process.start()
            there.close()
            marks: list[tuple[int, float, float]] = []
            with suppress(EOFError):
                while True:
                    marks.append(here.recv())
                    number, mib, seconds = marks[-1]
                    say(f"{name}: {number} trials, {mib:.0f} MiB, {1000 * seconds:.1f} ms a trial")
            process.join()
        found[name] = {
            "trials": [number for number, _, _ in marks],
            "mib": [round(mib, 1) for _, mib, _ in marks],
            "ms_per_trial": [round(1000 * seconds, 2) for _, _, seconds in marks],
            "bytes_per_trial": _slope(marks),
        }
    return {"memory": found}


def _slope(marks: list[tuple[int, float, float]]) -> int | None:
    """Bytes by which a trial adds to the memory, once the first marks have passed; None for too few."""
    later = marks[len(marks) // 5 :]
    if len(later) < 2:
        return None
    numbers, mib = [each[0] for each in later], [each[1] for each in later]
    return round(float(np.polyfit(numbers, mib, 1)[0]) * 2**20)


class _Marks:
    """Sends memory and time of a trial after every so many trials."""

    def __init__(self, every: int, connection: Any) -> None:
        self._every, self._connection = every, connection
        self._number = 0
        self._began_s = time.perf_counter()

    def ended(self) -> None:
        """A trial more."""
        self._number += 1
        if self._number % self._every == 0:
            gc.collect()
            now_s = time.perf_counter()
            each_s = (now_s - self._began_s) / self._every
            mib = psutil.Process().memory_info().rss / 2**20
            self._connection.send((self._number, mib, each_s))
            self._began_s = time.perf_counter()


def _replay(folder: Path, trials: int, every: int, connection: Any) -> None:
    study = _write_replay(folder, trials)
    marks = _Marks(every, connection)

    def report(event: object) -> None:
        if isinstance(event, TrialEnded):
            marks.ended()

    run_study(study, report=report)


def _ask_and_tell(folder: Path, trials: int, every: int, connection: Any) -> None:
    """What Optuna does for as many trials, and nothing else."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = schema.open_optuna_storage(f"sqlite:///{folder}/tuner.db")
    study = optuna.create_study(
        storage=storage,
        directions=["maximize", "minimize", "minimize"],
        sampler=make_sampler("random", seed=1, trial=0),
    )
    marks = _Marks(every, connection)
    for _ in range(trials):
        trial = study.ask()
        trial.suggest_categorical("workflow", ["direct"])
        trial.suggest_int("few_shot", 0, 8)
        trial.suggest_int("max_tokens", 1, 2000)
        study.tell(trial, [0.5, 1.0, 1.0])
        marks.ended()


def _write_replay(folder: Path, trials: int) -> LoadedStudy:
    """A study on a table that holds about twice as many configs as it has trials."""
    (folder / "space.yaml").write_text(REPLAY_SPACE.format(most=max(20, trials // 5)))
    text = STUDY.format(
        examples=QUESTIONS,
        holdout=0,
        trials=trials,
        storage="sqlite:///tuner.db",
        api_base="http://127.0.0.1:9/v1",
    )
    (folder / "study.yaml").write_text(text)
    study = load_study(folder / "study.yaml")
    task, rng = study.load_task(), np.random.default_rng(0)
    nothing = dict.fromkeys(("energy_j", "cost_usd"), None)
    calls = {"tokens_cached": 0, "llm_calls": 1, "tool_calls": 0, "tool_only_s": 0.0}
    configs, rows = {}, {}
    for config in study.space.configs(study.models) or ():
        key, line = config.hash(), config.model_dump()
        configs[key] = RecordedConfig(
            id=key, **line, anytime=None, energy_source="none", energy_scope="nothing"
        )
        rows[key] = [
            Row(
                config=key,
                example=example.id,
                score=float(rng.random() < 0.5),
                latency_s=seconds,
                llm_s=seconds,
                tokens_in=int(1000 * seconds),
                tokens_out=10,
                **nothing,
                **calls,
            )
            for example in task.search
            for seconds in [float(rng.lognormal())]
        ]
    provenance = _provenance()
    provenance["models"]["small"]["energy"] = {"source": "none", "scope": "nothing"}
    provenance["models"]["small"]["settings"] = ModelSettings(model="openai/loopback").model_dump()
    content = {
        "format_version": 1,
        "study": "recorded",
        "recorded_on": "2026-01-31",
        "task": {
            "name": task.name,
            "options": study.task_options.model_dump(mode="json"),
            "fingerprint": task.fingerprint(),
        },
        "search": [example.id for example in task.search],
        "holdout": [],
        "search_space": {"name": "replayed", "fingerprint": study.space.fingerprint()},
        "models": {name: declared(spec) for name, spec in study.spec.models.items()},
        "load": study.spec.load.model_dump(mode="json"),
        "cache": study.spec.cache,
        "provenance": provenance,
        "configs": len(configs),
        "rows": sum(map(len, rows.values())),
    }
    header = Header.model_validate_json(json.dumps(content))
    Table(header, configs, rows).write(folder / "table.jsonl")
    (folder / "study.yaml").write_text(text + "executor: {replay: table.jsonl}\n")
    return load_study(folder / "study.yaml")


PARTS: Mapping[str, Callable[[bool, Say], dict[str, Any]]] = {
    "verbs": verbs,
    "memory": memory,
    "speedup": speedup,
    "in_flight": in_flight,
}

if __name__ == "__main__":
    main()
