"""What an earlier study's evaluations are worth in a later one, and what is said of those that are worth nothing."""

import json
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from dataclasses import replace

import optuna
import pytest

from tuner import reuse
from tuner.errors import SpecError
from tuner.errors import StoreError
from tuner.records import ExampleRun
from tuner.records import Reading
from tuner.records import Reused
from tuner.reuse import evidence
from tuner.reuse import open_sources
from tuner.reuse import reusable
from tuner.spec import load_study
from tuner.store import Store
from tuner.store.schema import make_engine
from tuner.store.schema import migrate
from tuner.store.schema import open_optuna_storage
from workflows.config import AgentConfig
from workflows.table import workflow_kind

STUDY = """\
format_version: 1
name: {name}
task: {task}
search_space: {name}.space.yaml
models: {models}
objectives: [accuracy, latency_p50_s]
load: {load}
cache: {cache}
warm_start: {warm_start}
repeats: {repeats}
budget: {{trials: 9}}
storage: sqlite:///{storage}.db
"""
SPACE = "direct: {few_shot: [0, 2, 4]}\n  react: {max_steps: {low: 1, high: 6}}"
SERVER = {"engine": "llama.cpp", "engine_version": "1", "sha256": "ab" * 32, "slots": 1}
ENERGY = {"source": "cpu-estimate", "scope": "server process 17 at 10 W per busy core"}


def config_of(workflow="direct", model="m", **params):
    full = workflow_kind(workflow).params.model_validate(params).model_dump()
    return AgentConfig(workflow=workflow, model=model, params=full)


def run_of(example_id, repeat=0, **more):
    run = ExampleRun(
        example_id=example_id,
        repeat=repeat,
        answer="Elm",
        score=1.0,
        error=None,
        latency_s=0.5,
        energy=Reading(3.0, "cpu-estimate", "server process 17"),
        tokens_in=30,
        tokens_out=5,
        tokens_cached=0,
        cost_usd=None,
        llm_calls=1,
        tool_calls=0,
        llm_s=0.5,
        tool_only_s=0.0,
        started_s=0.0,
        checkpoints=(),
        spans=(),
    )
    return replace(run, **more)


@dataclass(frozen=True)
class Taken:
    config: AgentConfig
    source: str
    runs: tuple[ExampleRun, ...]


class Made:
    """A study in a folder of the test's, its storage and its task, and what trials it is given."""

    def __init__(self, study, stack):
        self.study = study
        self.task = study.load_task()
        storage = open_optuna_storage(study.storage_url)
        stack.callback(storage.engine.dispose)
        self.optuna = optuna.create_study(
            study_name=study.spec.name, storage=storage, directions=["maximize", "minimize"]
        )
        self.store = Store.create(study.storage_url, study.spec.name)
        stack.callback(self.store.close)
        self.register({})
        assert self.store.claim("test", None)

    def register(self, provenance):
        spec = self.study.spec.model_dump(mode="json")
        self.store.register(self.study.fingerprint(self.task), spec=spec, provenance=provenance)

    def keep_evidence(self):
        self.register(evidence(self.study, self.task, self.store.row()))

    def serve(self, name="m", *, energy=ENERGY, cache="cleared", **server):
        model = {"server": {**SERVER, **server}, "cache": cache, "energy": energy}
        self.register({"models": {name: model}})

    def try_config(self, config, runs, *, state="COMPLETE", replay_of=None, extras=()):
        trial = self.optuna.ask()
        trial_id = self.store.trial_id(trial.number)
        self.store.save_config(trial_id, config)
        for run in runs:
            self.store.save_run(trial_id, "search", run, owner="test", search_s=1.0)
        for run in extras:
            self.store.save_run(trial_id, "edge", run, owner="test", search_s=0.0)
        self.store.finish(trial_id, values={"accuracy": 1.0}, replay_of=replay_of)
        if state == "COMPLETE":
            self.optuna.tell(trial, [1.0, 0.5])
        elif state == "FAIL":
            self.optuna.tell(trial, state=optuna.trial.TrialState.FAIL)

    def ids(self, count):
        return [example.id for example in self.task.search[:count]]

    def reusable(self):
        with ExitStack() as stack:
            found, refused = reusable(
                self.study, self.task, self.store, open_sources(self.study, stack)
            )
            return [Taken(each.config, each.name, each.runs()) for each in found], refused


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A database with all tables and nothing in them, which takes a second to make."""
    file = tmp_path_factory.mktemp("empty") / "tuner.db"
    url = f"sqlite:///{file}"
    storage = open_optuna_storage(url)
    storage.engine.dispose()
    engine = make_engine(url)
    migrate(engine)
    engine.dispose()
    return file


@pytest.fixture
def write(tmp_path, empty):
    """Writes a study's files, and those that it needs; gives the study."""
    for storage in ("tuner", "elsewhere"):
        shutil.copy(empty, tmp_path / f"{storage}.db")
    rows = [{"id": f"q{n}", "question": f"Where is page {n}?", "answer": "Elm"} for n in range(20)]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def write(name, *, space=SPACE, examples=4, holdout=4, task="", models="", **keys):
        known = {
            "task": f"{{name: jsonl, path: q.jsonl, examples: {examples}, holdout: {holdout}{task}}}",
            "models": models or '{m: {model: hosted_vllm/m, api_base: "http://127.0.0.1:9/v1"}}',
            "load": "{concurrency: 1}",
            "cache": "isolated",
            "warm_start": "[earlier]" if name == "later" else "[]",
            "repeats": 1,
            "storage": "tuner",
        }
        text = f"format_version: 1\nname: s\nworkflows:\n  {space}\n"
        (tmp_path / f"{name}.space.yaml").write_text(text)
        (tmp_path / f"{name}.yaml").write_text(STUDY.format(name=name, **{**known, **keys}))
        return load_study(tmp_path / f"{name}.yaml")

    return write


@pytest.fixture
def make(write):
    """Makes a study that has a server running, unless `served` is None."""
    with ExitStack() as stack:

        def make(name, *, served=(), **keys):
            made = Made(write(name, **keys), stack)
            made.keep_evidence()
            if served is not None:
                made.serve(**dict(served))
            return made

        yield make


def test_a_whole_evaluation_is_taken_and_costs_nothing(make):
    earlier, later = make("earlier"), make("later")
    config = config_of(few_shot=2)
    earlier.try_config(config_of(few_shot=0), [])
    earlier.try_config(config, [run_of(example) for example in earlier.ids(4)])
    (found,), refused = later.reusable()
    assert (found.config, found.source) == (config, "earlier/1")
    assert {run.example_id for run in found.runs} == set(later.ids(4))
    assert {run.reused for run in found.runs} == {Reused(0.5, 3.0, 35, 0.0)}
    assert refused == ["earlier: 1 trial refused: none of the questions answered is asked here"]


def test_more_questions_of_the_same_draw_are_a_part_and_others_are_left_out(make):
    """A question is compared by itself: a study of other size asks some of the same."""
    earlier, later = make("earlier", examples=4, holdout=0), make("later", examples=6, holdout=2)
    config = config_of(few_shot=2)
    earlier.try_config(config, [run_of(example) for example in earlier.ids(3)])
    (found,), refused = later.reusable()
    assert [run.example_id for run in found.runs] == later.ids(3)
    assert refused == []

    smaller = make("smaller", examples=2, holdout=0, warm_start="[earlier]")
    (found,), _ = smaller.reusable()
    assert [run.example_id for run in found.runs] == smaller.ids(2)


def test_a_question_that_is_worded_or_answered_otherwise_is_another(make, tmp_path):
    earlier = make("earlier", examples=4)
    earlier.try_config(config_of(), [run_of(example) for example in earlier.ids(4)])
    changed, *same = earlier.ids(4)
    file = tmp_path / "q.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        if row["id"] == changed:
            row["answer"] = "Oak"
    file.write_text("\n".join(map(json.dumps, rows)))
    (found,), refused = make("later").reusable()
    assert [run.example_id for run in found.runs] == same
    assert refused == []


def test_what_is_open_or_has_seen_only_a_part_is_taken_and_what_failed_or_repeats_is_not(make):
    earlier, later = make("earlier"), make("later")
    for steps, state in ((1, "RUNNING"), (2, "FAIL")):
        runs = [run_of(example) for example in earlier.ids(2)]
        earlier.try_config(config_of("react", max_steps=steps), runs, state=state)
    earlier.try_config(config_of("react", max_steps=1), [], replay_of=0)
    (found,), refused = later.reusable()
    assert (found.source, len(found.runs)) == ("earlier/0", 2)
    assert refused == []


def test_a_config_comes_once_with_the_most_answers_and_not_where_it_is_known(make):
    earlier, other = make("earlier"), make("other")
    later = make("later", warm_start="[other, earlier]")
    once, known = config_of(few_shot=0), config_of(few_shot=2)
    for made, count in ((other, 2), (earlier, 3)):
        made.try_config(once, [run_of(example) for example in made.ids(count)])
        made.try_config(known, [run_of(example) for example in made.ids(count)])
    later.try_config(known, [])
    (found,), _ = later.reusable()
    assert (found.config, found.source, len(found.runs)) == (once, "earlier/0", 3)


def test_repeats_are_taken_as_far_as_they_are_asked_for(make):
    earlier = make("earlier", repeats=3)
    (example,) = earlier.ids(1)
    earlier.try_config(config_of(), [run_of(example, repeat) for repeat in range(3)])
    for repeats in (1, 2):
        later = make(f"later-{repeats}", repeats=repeats, warm_start="[earlier]")
        (found,), _ = later.reusable()
        assert [run.repeat for run in found.runs] == list(range(repeats))


def test_extra_questions_of_the_same_sittings_come_along(make):
    load = "{concurrency: 2, cool_down: 1}"
    earlier, later = make("earlier", load=load), make("later", load=load)
    first, second = earlier.ids(2)
    extras = [run_of(second, 1, window=n, edge=True) for n in (0, 3)]
    earlier.try_config(config_of(), [run_of(first)], extras=[extras[0]])
    (found,), _ = later.reusable()
    assert [(run.example_id, run.edge) for run in found.runs] == [(first, False), (second, True)]


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        ({"task": ", tool_delay_s: 1.5"}, "another tool_delay_s (1.5; here 0.0)"),
        ({"task": ", score: f1"}, "another score (f1; here exact)"),
        ({"task": ", instruction: Guess."}, "another agent pack"),
        ({"load": "{rate: 2.5}"}, "another load (rate 2.5; here concurrency 1)"),
        ({"cache": "shared"}, "another cache (shared; here isolated)"),
        (
            {"load": "{concurrency: 4}", "cache": "shared"},
            "another load (concurrency 4; here concurrency 1); another cache (shared; here isolated)",
        ),
        ({"served": {"engine_version": "2"}}, "model m: another engine_version (2; here 1)"),
        ({"served": {"sha256": "cd" * 32}}, "model m: another sha256"),
        (
            {"served": {"cache": "salted: prompt"}},
            "model m: another separation of caches (salted: prompt; here cleared)",
        ),
        (
            {"served": {"energy": {**ENERGY, "source": "rapl"}}},
            "model m: another source of energy readings (rapl; here cpu-estimate)",
        ),
        (
            {"served": {"energy": {**ENERGY, "scope": "server process 9 at 7 W per busy core"}}},
            "model m: another meter (server process at 7 W per busy core; here server process at 10 W per busy core)",
        ),
        (
            {"served": {"engine": "x", "engine_version": "y", "slots": 2, "threads": 1}},
            "model m: another engine (x; here llama.cpp), another engine_version (y; here 1), "
            "another slots (2; here 1), and 1 more",
        ),
        ({"served": None}, "model m: what served it is not known"),
    ],
)  # fmt: skip
def test_what_was_measured_under_other_terms_is_refused_and_the_terms_are_named(
    make, there, reason
):
    earlier, later = make("earlier", **there), make("later")
    for few_shot in (0, 2):
        earlier.try_config(config_of(few_shot=few_shot), [run_of(e) for e in earlier.ids(4)])
    assert later.reusable() == ([], [f"earlier: 2 trials refused: {reason}"])


@pytest.mark.parametrize(
    ("condition", "value"), [("machine", "Linux x86_64, 8 × Another"), ("version of tuner", "9")]
)
def test_another_machine_or_version_is_refused_also_where_only_a_part_was_run_on_it(
    make, write, monkeypatch, condition, value
):
    earlier = make("earlier")
    earlier.try_config(config_of(), [run_of(example) for example in earlier.ids(4)])
    row = earlier.store.row()
    here = row.provenance["conditions"][0]
    moved = "machine" if condition == "machine" else "version"
    monkeypatch.setattr(reuse, moved, lambda *_: value)
    later = make("later")
    _, refused = later.reusable()
    assert refused == [
        f"earlier: 1 trial refused: another {condition} ({here[condition]}; here {value})"
    ]
    earlier.keep_evidence()  # it goes on here
    _, refused = later.reusable()
    assert refused == [
        f"earlier: 1 trial refused: another {condition} ({here[condition]} and {value}; here {value})"
    ]


def test_what_an_earlier_version_did_not_keep_is_refused(make):
    earlier = make("earlier")
    earlier.try_config(config_of(), [run_of(example) for example in earlier.ids(4)])
    with earlier.store._engine.begin() as connection:
        connection.execute(earlier.store._update_study(provenance={}))
    later = make("later")
    found, (refusal,) = later.reusable()
    assert found == []
    assert refusal.startswith("earlier: 1 trial refused: its agent pack is not known; its wording")
    earlier.keep_evidence()  # what it measured before stays unknown
    _, (refusal,) = later.reusable()
    assert refusal.startswith("earlier: 1 trial refused: its machine is not known; ")


def test_a_search_that_saw_what_is_held_out_here_is_refused(make):
    """Its choice of configs would have been made with the questions that are to confirm it."""
    earlier, later = make("earlier", examples=8), make("later", examples=4, holdout=6)
    earlier.try_config(config_of(), [run_of(example) for example in earlier.ids(8)])
    assert later.reusable() == (
        [],
        ["earlier: 1 trial refused: its search saw 4 of the questions that are held out here"],
    )


def test_configs_are_judged_one_by_one(make):
    earlier = make("earlier", space="direct: {few_shot: [0, 3]}")
    runs = [run_of(example) for example in earlier.ids(4)]
    for config in (config_of(few_shot=0), config_of(few_shot=3), config_of(few_shot=3, model="x")):
        earlier.try_config(config, runs)
    (found,), refused = make("later").reusable()
    assert found.config == config_of(few_shot=0)
    assert refused == ["earlier: 2 trials refused: not in the search space here"]


def test_a_workflow_of_ones_own_may_have_changed(make, tmp_path, monkeypatch):
    (tmp_path / "agents_of_reuse.py").write_text("async def answer(question, session): return ''\n")
    monkeypatch.syspath_prepend(tmp_path)
    name = "agents_of_reuse:answer"
    space = f"'{name}': {{}}\n  cascade: {{cheap: ['{name}', direct], costly: cot}}"
    earlier, later = make("earlier", space=space), make("later", space=space)
    runs = [run_of(example) for example in earlier.ids(4)]
    earlier.try_config(config_of(name), runs)
    earlier.try_config(config_of("cascade", cheap=name, costly="cot"), runs)
    earlier.try_config(config_of("cascade", cheap="direct", costly="cot"), runs)
    (found,), refused = later.reusable()
    assert found.config.params["cheap"] == "direct"
    assert refused == [f"earlier: 2 trials refused: the code of {name} may have changed"]


def test_every_model_of_a_config_counts(make):
    models = "{m: {model: openai/m}, judge: {model: openai/judge}}"
    space = "cascade: {cheap: direct, costly: cot, doubt: judge, judge_model: [actor, judge]}"
    earlier = make("earlier", space=space, models=models)
    later = make("later", space=space, models=models)
    earlier.serve("judge", slots=2)
    later.serve("judge", slots=3)
    given = {"cheap": "direct", "costly": "cot", "doubt": "judge"}
    for judge in ("actor", "judge"):
        config = config_of("cascade", judge_model=judge, **given)
        earlier.try_config(config, [run_of(example) for example in earlier.ids(4)])
    (found,), refused = later.reusable()
    assert found.config.params["judge_model"] == "actor"
    assert refused == ["earlier: 1 trial refused: model judge: another slots (2; here 3)"]


def test_a_variant_that_was_not_started_yet_is_like_the_one_that_runs_but_for_its_knobs(make):
    models = "{m: {serve: llama.cpp, weights: smollm2-135m-instruct, slots: [1, 2], prefix_cache: [true, false]}}"
    earlier = make("earlier", models=models, served=None)
    later = make("later", models=models, served=None)
    for slots, cached in ((1, True), (2, True), (2, False)):
        name = f"m@slots={slots},prefix_cache={str(cached).lower()}"
        earlier.serve(name, slots=slots, prefix_cache=cached, context=4096 if cached else 1024)
        earlier.try_config(config_of(model=name), [run_of(e) for e in earlier.ids(4)])
    later.serve("m@slots=1,prefix_cache=true", prefix_cache=True, context=4096)
    found, refused = later.reusable()
    assert [each.config.model for each in found] == [
        "m@slots=1,prefix_cache=true",
        "m@slots=2,prefix_cache=true",
    ]
    assert refused == [
        "earlier: 1 trial refused: model m@slots=2,prefix_cache=false: another context (1024; here 4096)"
    ]


def test_a_study_file_may_keep_its_results_elsewhere(make, write):
    earlier = make("earlier", storage="elsewhere")
    earlier.try_config(config_of(), [run_of(example) for example in earlier.ids(4)])
    later = make("later", warm_start="[earlier.yaml]")
    (found,), refused = later.reusable()
    assert (found.source, refused) == ("earlier/0", [])


@pytest.mark.parametrize(
    ("entry", "error", "message"),
    [
        ("nowhere/old.yaml", SpecError, r"later.yaml: warm_start: nowhere/old.yaml: there is no file "),
        ("later", SpecError, "warm_start: later: is this study itself"),
        ("later.yaml", SpecError, "warm_start: later.yaml: is this study itself"),
        ("unheard-of", StoreError, "warm_start: unheard-of: .*holds no study named 'unheard-of'"),
        ("written.yaml", StoreError, "warm_start: written.yaml: .*there is no such file yet"),
    ],
)  # fmt: skip
def test_a_source_that_is_not_there_is_a_mistake(make, write, entry, error, message):
    write("written", storage="never_run")
    later = make("later", warm_start=f"[{entry}]")
    with pytest.raises(error, match=message) as refused:
        later.reusable()
    assert refused.value.hint
