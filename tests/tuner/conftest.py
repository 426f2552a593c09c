"""Studies that run against a loopback server in a process of its own, and studies whose results are given."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import AbstractContextManager
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from tuner.cli import main
from tuner.export import export
from tuner.objectives import OBJECTIVES
from tuner.records import ExampleRun
from tuner.records import Reading
from tuner.results import open_results
from tuner.rules import Rule
from tuner.spec import LoadedStudy
from tuner.spec import load_study
from tuner.store import Store
from tuner.store.schema import open_optuna_storage
from tuner.study import run_study
from tuner.tasks import Task
from workflows.base import Checkpoint
from workflows.config import AgentConfig
from workflows.config import ModelSettings
from workflows.table import workflow_kind
from workflows.trace import Span

LOOPBACK = Path(__file__).resolve().parents[2] / "benchmarks" / "loopback.py"

SPACE = """\
format_version: 1
name: small
workflows:
  cot: {max_tokens: [64, 128]}
  self_consistency: {samples: {low: 1, high: 4}}
  react: {max_steps: {low: 1, high: 4}, thoughts: [true, false]}
"""
STUDY = """\
format_version: 1
name: small
task: {{name: jsonl, path: questions.jsonl, examples: 10, holdout: 6}}
search_space: space.yaml
models: {{loopback: {{model: openai/loopback, api_base: "{api_base}", max_retries: 0}}}}
objectives: [accuracy, tokens_total]
sampler: {{name: tpe, seed: 3}}
budget: {{trials: {trials}}}
storage: sqlite:///tuner.db
"""

STAND_IN = '''
"""Takes the command line of vLLM or SGLang and answers a fixed text: loopback.py behind their flags."""
import argparse, asyncio, importlib.util, json, os, subprocess, sys, time

loading = importlib.util.spec_from_file_location("loopback", {loopback!r})
loopback = importlib.util.module_from_spec(loading)
sys.modules["loopback"] = loopback
loading.loader.exec_module(loopback)

parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("model", nargs="*")
for flag in {flags}:
    parser.add_argument(flag)
for flag in {switches}:
    parser.add_argument(flag, action="store_true")
given = parser.parse_args()
behaviour = dict(pair.split("=") for pair in os.environ.get("STAND_IN", "").split())
with open({starts!r}, "a") as starts:
    starts.write(json.dumps({{"pid": os.getpid(), "line": sys.argv[1:]}}) + "\\n")
print("loading", given.model or given.model_path, flush=True)
if behaviour.get("refuses", "nothing") == given.kv_cache_dtype:
    sys.exit(f"ValueError: {{given.kv_cache_dtype}} is not supported on this device")
if "child" in behaviour:  # as engines have them: in a session of its own, and deaf to requests to end
    subprocess.Popen(["bash", "-c", "trap '' TERM; echo $$ > $0; sleep 300", behaviour["child"]], start_new_session=True)
time.sleep(float(behaviour.get("loads_s", 0)))


class Connection(loopback.Connection):
    probed = False

    def _answer(self, received):
        known = {{
            "/health": {{}},
            "/version": {{"version": "0.32.0"}},
            "/server_info": {{"version": "0.5.23"}},
            "/v1/models": {{"data": [{{"id": given.served_model_name}}]}},
            "/reset_prefix_cache": {{"success": True}},
            "/flush_cache": {{}},
        }}
        path = received.path.partition("?")[0]
        if path in known:
            self._transport.write(loopback.response(200, known[path]))
        elif Connection.probed and len(open({starts!r}).readlines()) < int(behaviour.get("beside", 1)):
            asyncio.get_running_loop().call_later(0.1, self._answer, received)
        else:
            Connection.probed = True
            super()._answer(received)


loopback.Connection = Connection
cached = 0 if given.no_enable_prefix_caching else 8
asyncio.run(loopback.run(loopback.Behaviour(cached_tokens=cached), int(given.port)))
'''
VALUED = (
    "--served-model-name --host --port --seed --tensor-parallel-size --max-model-len --kv-cache-dtype "
    "--kv-offloading-size --quantization --max-num-seqs --speculative-config "
    "--model-path --random-seed --log-level-http --context-length --max-running-requests"
)
SWITCHES = (
    "--enable-prefix-caching --no-enable-prefix-caching --enable-prompt-tokens-details "
    "--disable-uvicorn-access-log --disable-radix-cache --enable-metrics --enable-cache-report"
)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def tuner(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Runs the command line in this process, as its script does."""

    def call(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["tuner", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return Ended(code, *capsys.readouterr())

    return call


Serve = Callable[..., AbstractContextManager[str]]
MakeStudy = Callable[..., LoadedStudy]


@contextmanager
def serve_loopback(*arguments: str) -> Iterator[str]:
    """The address of a loopback server with these arguments, until the block ends."""
    command = [sys.executable, str(LOOPBACK), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["api_base"]
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def serve_model() -> Serve:
    """Starts loopback servers."""
    return serve_loopback


@pytest.fixture
def serve(serve_model: Serve) -> Serve:
    """The same, where nothing else is served."""
    return serve_model


@pytest.fixture(scope="session")
def api_base() -> Iterator[str]:
    """A loopback server that answers every request at once."""
    with serve_loopback() as address:
        yield address


@pytest.fixture
def make_study(tmp_path: Path, api_base: str) -> MakeStudy:
    """Writes a small study into a folder; half of its questions are answered rightly."""

    def make(
        *,
        folder: str = "study",
        trials: int = 6,
        server: str = api_base,
        extra: str = "",
        space: str = SPACE,
        replace: tuple[str, str] = ("", ""),
        questions: int = 16,
    ) -> LoadedStudy:
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        rows = [
            {"question": f"Question {n}?", "answer": "forty-two" if n % 2 else "seven"}
            for n in range(questions)
        ]
        (path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (path / "space.yaml").write_text(space)
        text = STUDY.format(api_base=server, trials=trials).replace(*replace)
        (path / "study.yaml").write_text(text + extra)
        return load_study(path / "study.yaml")

    return make


@dataclass(frozen=True)
class StandIn:
    """A program that can be started like vLLM or SGLang, and what it was started with."""

    command: tuple[str, ...]
    _starts: Path

    def starts(self) -> list[dict[str, Any]]:
        """The pid and the arguments of each start so far."""
        if not self._starts.exists():
            return []
        return [json.loads(line) for line in self._starts.read_text().splitlines()]


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    """A peer that takes the engines' flags and answers at once; `STAND_IN` in its environment makes it fail or wait."""
    script, starts = tmp_path / "engine.py", tmp_path / "starts"
    text = STAND_IN.format(
        loopback=str(LOOPBACK),
        flags=VALUED.split(),
        switches=SWITCHES.split(),
        starts=str(starts),
    )
    script.write_text(text)
    return StandIn((sys.executable, str(script)), starts)


@dataclass(frozen=True)
class Found:
    """What a trial found: its workflow and knobs, and a (score, seconds, joules) for each question of a split."""

    workflow: str
    params: Mapping[str, Any]
    search: Sequence[tuple[float, float, float | None]]
    holdout: Sequence[tuple[float, float, float | None]] = ()
    feasible: bool = True
    replay_of: int | None = None
    failure: str | None = None
    derived_from: int | None = None
    reused_from: str | None = None
    stopped: str | None = None
    repeats: Mapping[int, Sequence[tuple[float, float, float | None]]] = field(default_factory=dict)
    """More answers to search questions, by their places."""


KEPT = """\
format_version: 1
name: kept
task:
  {name: jsonl, path: q.jsonl, documents: pages.jsonl, demonstrations: shown.jsonl, examples: 4, holdout: 4, seed: 1}
search_space: space.yaml
models:
"""
KEPT_MODEL = """\
  NAME: {model: hosted_vllm/NAME, api_base: "http://127.0.0.1:9/v1", api_key_env: SECRET_KEY}
"""
KEPT_AIMS = """\
objectives: [accuracy, latency_p50_s, energy_wh]
budget: {trials: 9}
"""
KEPT_SPACE = """\
format_version: 1
name: kept
workflows:
  direct:
    few_shot: [0, 2]
    demonstrations: {choices: [fixed, nearest], when: {few_shot: ">= 1"}}
  react: {max_steps: [1, 2, 3, 4, 5, 6]}
  reflexion:
    feedback: [self, oracle]
"""
KEPT_ROWS = {
    "q.jsonl": [
        {"id": f"q{n}", "question": f"Where is page {n}?", "answer": "Elm"} for n in range(9)
    ],
    "pages.jsonl": [{"title": f"Page {n}", "text": f"It is page {n}."} for n in range(3)],
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
SETTINGS = {
    "model": "hosted_vllm/m",
    "api_base": "http://127.0.0.1:9/v1",
    "api_key_env": "SECRET_KEY",
}
PROVENANCE = {
    "versions": {"tuner": "0.1.0"},
    "python": "3.11",
    "machine": "Linux x86_64, 2 CPUs",
    "models": {
        "m": {
            "settings": ModelSettings(**SETTINGS).model_dump(mode="json"),
            "serve": None,
            "cache": "shared",
            "energy": {"source": "cpu-estimate", "scope": "server process 1"},
        }
    },
}

Keep = Callable[..., LoadedStudy]


def run_of(example: str, score: float, latency_s: float, joules: float | None) -> ExampleRun:
    """An answered question with one model call and one tool call."""
    problem = "the counter was lost" if joules is None else None
    return ExampleRun(
        example_id=example,
        repeat=0,
        answer="Elm" if score else "",
        score=score,
        error=None,
        latency_s=latency_s,
        energy=Reading(joules, "cpu-estimate", "server process 1", problem, latency_s),
        tokens_in=30,
        tokens_out=5,
        tokens_cached=0,
        cost_usd=None,
        llm_calls=1,
        tool_calls=1,
        llm_s=latency_s / 2,
        tool_only_s=0.0,
        started_s=0.0,
        checkpoints=(Checkpoint(1, "Elm", 2, latency_s),),
        spans=(
            Span("llm", "m", 0.0, latency_s / 2, "Where?", "search[Elm]", 0.1, 30, 5, 0),
            Span("tool", "search", latency_s / 2, latency_s, "Elm", "A village.", error="slow"),
        ),
        samples=() if joules is None else ((latency_s, joules),),
    )


@pytest.fixture
def found() -> type[Found]:
    """What `keep` takes, for tests that cannot import it from here."""
    return Found


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folders of studies whose trials found this, each made once; not to be written to."""
    folders: dict[str, Path] = {}

    def make(found: Sequence[Found], provenance: Mapping[str, Any], extra: str) -> Path:
        key = repr((found, provenance, extra))
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp("kept")
            _keep_study(folders[key], found, provenance, extra)
        return folders[key]

    return make


@pytest.fixture
def keep(tmp_path: Path, kept: Callable[..., Path]) -> Keep:
    """Writes a study, and what trials found into its storage as a run would, by Optuna and Store."""

    def keep(
        *found: Found, provenance: Mapping[str, Any] = PROVENANCE, extra: str = ""
    ) -> LoadedStudy:
        shutil.copytree(kept(found, provenance, extra), tmp_path, dirs_exist_ok=True)
        return load_study(tmp_path / "study.yaml")

    return keep


def _keep_study(
    folder: Path, found: Sequence[Found], provenance: Mapping[str, Any], extra: str
) -> None:
    models = list(provenance["models"])
    space = (
        KEPT_SPACE if len(models) == 1 else f"{KEPT_SPACE}    judge_model: [{', '.join(models)}]\n"
    )
    (folder / "space.yaml").write_text(space)
    named = "".join(KEPT_MODEL.replace("NAME", name) for name in models)
    (folder / "study.yaml").write_text(KEPT + named + KEPT_AIMS + extra)
    for name, rows in KEPT_ROWS.items():
        (folder / name).write_text("\n".join(map(json.dumps, rows)))
    study = load_study(folder / "study.yaml")
    task = study.load_task()
    storage = open_optuna_storage(study.storage_url)
    optuna_study = optuna.create_study(
        study_name=study.spec.name,
        storage=storage,
        directions=[OBJECTIVES[name].direction for name in study.spec.objectives],
    )
    store = Store.create(study.storage_url, study.spec.name)
    spec = study.spec.model_dump(mode="json")
    store.register(study.fingerprint(task), spec=spec, provenance=provenance)
    assert store.claim("test", None)
    for each in found:
        _keep_trial(study, task, optuna_study, store, each)
    store.release("test")
    store.close()
    storage.engine.dispose()


def _keep_trial(
    study: LoadedStudy, task: Task, optuna_study: optuna.Study, store: Store, found: Found
) -> None:
    params = workflow_kind(found.workflow).params.model_validate(found.params).model_dump()
    config = AgentConfig(workflow=found.workflow, model="m", params=params)
    optuna_study.enqueue_trial(study.space.flat(config, study.models))
    trial = optuna_study.ask()
    assert study.space.sample(trial, study.models) == config
    trial_id = store.trial_id(trial.number)
    store.save_config(
        trial_id, config, derived_from=found.derived_from, reused_from=found.reused_from
    )
    for split, rows in (("search", found.search), ("holdout", found.holdout)):
        for sitting, (example, row) in enumerate(zip(task.examples(split), rows, strict=False)):
            run = replace(run_of(example.id, *row), window=sitting)
            store.save_run(trial_id, split, run, owner="test", search_s=1.0)
    for place, rows in found.repeats.items():
        for repeat, row in enumerate(rows, start=1):
            run = replace(run_of(task.examples("search")[place].id, *row), repeat=repeat)
            store.save_run(trial_id, "search", run, owner="test", search_s=1.0)
    if found.failure is not None:
        store.finish(trial_id, failure=found.failure)
        optuna_study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return
    runs = store.runs(trial_id, "search")
    values = {name: OBJECTIVES[name].value(runs) for name in study.measured()}
    known = {name: 0.0 if value is None else value for name, value in values.items()}
    store.finish(
        trial_id,
        values=known,
        feasible=found.feasible,
        replay_of=found.replay_of,
        stopped=found.stopped,
    )
    optuna_study.tell(trial, [known[name] for name in study.spec.objectives])


@pytest.fixture(scope="module")
def claim() -> list[str]:
    """What `exported` holds, made once."""
    return []


@pytest.fixture
def exported(make_study: MakeStudy, claim: list[str], tmp_path: Path) -> Path:
    """An export whose claim is of 80 holdout questions, half of which are answered rightly."""
    sizes = ("examples: 10, holdout: 6", "examples: 4, holdout: 80")
    study = make_study(trials=1, replace=sizes, questions=90)
    out = tmp_path / "best.yaml"
    if not claim:
        run_study(study)
        export(study, open_results(study), rule=Rule.parse("max-accuracy"), out=out)
        claim.append(out.read_text())
    out.write_text(claim[0])
    return out
