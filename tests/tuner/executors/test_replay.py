"""Studies on recorded tables: what the executor hands out, what it says of itself, and what it refuses before anything runs."""

import asyncio
import json
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tuner.derive import derive
from tuner.errors import SpecError
from tuner.errors import TrialError
from tuner.errors import UserError
from tuner.executors.replay import ReplayExecutor
from tuner.executors.replay import declared
from tuner.load import Load
from tuner.records import ExampleRun
from tuner.records import PassRecord
from tuner.spec import LoadedStudy
from tuner.table import AtBudget
from tuner.table import Header
from tuner.table import RecordedConfig
from tuner.table import Row
from tuner.table import Table
from tuner.tasks import Task
from workflows.config import AgentConfig
from workflows.config import ModelSettings
from workflows.table import workflow_kind

MakeStudy = Callable[..., LoadedStudy]
Replayed = Callable[..., LoadedStudy]

SPACE = """\
format_version: 1
name: small
workflows:
  direct: {few_shot: 0}
  react: {max_steps: [1, 2, 4], thoughts: [true, false]}
"""


def cost_of(rounds: int) -> dict[str, Any]:
    """A second, a joule and a call for each round, and half a second between."""
    return {
        "latency_s": 1.5 * rounds,
        "energy_j": float(rounds),
        "tokens_in": 10 * rounds,
        "tokens_out": rounds,
        "tokens_cached": 0,
        "cost_usd": None,
        "llm_calls": rounds,
        "tool_calls": rounds - 1,
        "llm_s": float(rounds),
        "tool_only_s": 0.0,
    }


def row_of(config: AgentConfig, example: str, number: int, anytime: str | None) -> Row:
    """Every second question is answered, in as many rounds as its number; a config without rounds answers at once."""
    budget = 1 if anytime is None else int(config.params[anytime])
    rounds = min(budget, number + 1)
    return Row(
        config=config.hash(),
        example=example,
        score=float(number % 2 and rounds > number),
        checkpoints=tuple(AtBudget(budget=n, score=0.0, **cost_of(n)) for n in range(1, rounds)),
        **cost_of(rounds),
    )


def recorded(
    study: LoadedStudy, configs: Sequence[AgentConfig] | None = None, **header: Any
) -> Table:
    """A table of these configs, or of the study's space at its largest budgets, without calling any model."""
    task = study.load_task()
    if configs is None:
        listed = list(study.space.configs(study.models) or ())
        configs = [config for config in listed if config.params.get("max_steps", 4) == 4]
    lines = {}
    for config in configs:
        anytime = workflow_kind(config.workflow).params.anytime
        line = {"id": config.hash(), **config.model_dump(), "anytime": anytime}
        lines[config.hash()] = RecordedConfig(
            **line, energy_source="rapl", energy_scope="package-0"
        )
    rows = {
        key: [
            row_of(line.config, example.id, number, line.anytime)
            for number, example in enumerate((*task.search, *task.holdout))
        ]
        for key, line in lines.items()
    }
    model = {
        "settings": ModelSettings(model="openai/loopback").model_dump(),
        "serve": None,
        "cache": "shared",
        "energy": {"source": "rapl", "scope": "package-0"},
    }
    content: dict[str, Any] = {
        "format_version": 1,
        "study": "recorded",
        "recorded_on": "2026-01-31",
        "task": {
            "name": task.name,
            "options": study.task_options.model_dump(mode="json"),
            "fingerprint": task.fingerprint(),
        },
        "search": [example.id for example in task.search],
        "holdout": [example.id for example in task.holdout],
        "search_space": {"name": "small", "fingerprint": study.space.fingerprint()},
        "models": {name: declared(spec) for name, spec in study.spec.models.items()},
        "load": study.spec.load.model_dump(mode="json"),
        "cache": study.spec.cache,
        "provenance": {
            "machine": "another machine",
            "python": "3.11",
            "versions": {"tuner": "0.1.0"},
            "models": {"loopback": model},
        },
        "configs": len(lines),
        "rows": sum(map(len, rows.values())),
        **header,
    }
    return Table(Header.model_validate_json(json.dumps(content)), lines, rows)


@pytest.fixture
def replayed(make_study: MakeStudy, tmp_path: Path) -> Replayed:
    """A study on a table of the whole small space, on a server that is not there."""

    def make(*, table: Mapping[str, Any] | None = None, **changes: Any) -> LoadedStudy:
        away = {"server": "http://127.0.0.1:9/v1", "space": SPACE}
        recorded(make_study(**away), **(table or {})).write(tmp_path / "study" / "t.jsonl.gz")
        extra = "executor: {replay: t.jsonl.gz}\n" + changes.pop("extra", "")
        return make_study(**{**away, **changes}, extra=extra)

    return make


def open_executor(study: LoadedStudy) -> tuple[ReplayExecutor, Table, Task]:
    """As a study's run would open it."""
    assert study.table_path is not None
    table, task = Table.read(study.table_path), study.load_task()
    return ReplayExecutor(table, study=study, task=task), table, task


def run(
    executor: ReplayExecutor, config: AgentConfig, task: Task, **how: Any
) -> tuple[list[ExampleRun], PassRecord]:
    """A pass over the search questions."""
    runs: list[ExampleRun] = []
    (sitting,) = asyncio.run(executor.run(config, task.search, runs.append, window=3, **how))
    return runs, sitting


def react(study: LoadedStudy, steps: int) -> AgentConfig:
    """The space's agent with so many steps."""
    return next(
        config
        for config in study.space.configs(study.models) or ()
        if config.params.get("max_steps") == steps and config.params["thoughts"]
    )


def test_every_config_of_the_space_is_answered_at_once_in_order_and_marked(
    replayed: Replayed,
) -> None:
    study = replayed()
    executor, _, task = open_executor(study)
    for config in study.space.configs(study.models) or ():
        assert executor.is_ready(config)
        runs, sitting = run(executor, config, task)
        assert [each.example_id for each in runs] == [example.id for example in task.search]
        assert {each.window for each in runs} == {sitting.window} == {3}
        assert {each.energy.source for each in runs} == {sitting.energy.source} == {"replayed rapl"}
        assert sitting.energy.gross_j == sum(each.energy_j or 0 for each in runs)
    four, two = (run(executor, react(study, steps), task)[0] for steps in (4, 2))
    assert [each.latency_s for each in four[:5]] == [1.5, 3, 4.5, 6, 6]
    assert [each.latency_s for each in two[:5]] == [1.5, 3, 3, 3, 3]
    assert [each.score for each in two[:5]] == [0, 1, 0, 0, 0]


def test_times_lie_on_one_axis_as_the_load_had_them(replayed: Replayed) -> None:
    study = replayed()
    executor, _, task = open_executor(study)
    runs, _ = run(executor, react(study, 4), task)
    assert [each.started_s for each in runs[:4]] == [0, 1.5, 4.5, 9]


def test_two_at_a_time_begin_when_one_is_free(make_study: MakeStudy, tmp_path: Path) -> None:
    away = {"server": "http://127.0.0.1:9/v1", "space": SPACE}
    two = "load: {concurrency: 2}\n"
    recorded(make_study(**away, extra=two)).write(tmp_path / "study" / "t.jsonl")
    study = make_study(**away, extra=two + "executor: {replay: t.jsonl}\n")
    executor, _, task = open_executor(study)
    runs, _ = run(executor, react(study, 4), task)
    assert [each.started_s for each in runs[:5]] == [0, 0, 1.5, 3, 6]


def test_what_is_enough_ends_the_pass(replayed: Replayed) -> None:
    study = replayed()
    executor, _, task = open_executor(study)
    runs: list[ExampleRun] = []
    asked = executor.run(
        react(study, 4), task.search, runs.append, window=0, enough=lambda: len(runs) == 3
    )
    (sitting,) = asyncio.run(asked)
    assert (len(runs), sitting.load["questions"]) == (3, 3)
    (none,) = asyncio.run(
        executor.run(react(study, 4), task.search, runs.append, window=1, enough=lambda: True)
    )
    assert (len(runs), none.energy.gross_j) == (3, None)


def test_a_larger_budget_goes_on_from_what_a_smaller_one_had_done(replayed: Replayed) -> None:
    study = replayed()
    executor, _, task = open_executor(study)
    small, _ = run(executor, react(study, 2), task)
    past = executor.begun(react(study, 4), react(study, 2), small, [])
    large, _ = run(executor, react(study, 4), task, past=past)
    whole, _ = run(executor, react(study, 4), task)
    assert [each.latency_s for each in large] == [each.latency_s for each in whole]
    # The first two questions were answered within two rounds; of the others two rounds are paid for.
    assert [each.reused.latency_s for each in large[:4]] == [1.5, 3, 3, 3]
    assert (large[3].reused.energy_j, large[3].reused.tokens) == (2, 22)
    assert all(each.reused.latency_s == 0 for each in whole)
    assert [each.began_s for each in large[:4]] == [0, 0, 0, 1.5]


def test_a_smaller_budget_has_nothing_left_to_pay_of_a_larger_ones_rounds(
    replayed: Replayed,
) -> None:
    study = replayed()
    executor, _, task = open_executor(study)
    large, _ = run(executor, react(study, 4), task)
    past = executor.begun(react(study, 2), react(study, 4), large, [])
    small, _ = run(executor, react(study, 2), task, past=past)
    assert all(each.reused.latency_s == each.latency_s for each in small)


def test_nothing_was_begun_by_what_failed_or_has_no_rounds(replayed: Replayed) -> None:
    study = replayed()
    executor, _, task = open_executor(study)
    first, *others = run(executor, react(study, 2), task)[0]
    failed = [replace(first, error="cut"), replace(others[0], oracle=True), *others[1:]]
    past = executor.begun(react(study, 4), react(study, 2), failed, [])
    assert list(past) == [each.example_id for each in others[1:]]
    direct = next(iter(study.space.configs(study.models) or ()))
    assert direct.workflow == "direct"
    assert executor.begun(direct, direct, failed, []) == {}


def test_a_run_has_what_smaller_budgets_would_have_given_at_no_cost(replayed: Replayed) -> None:
    study = replayed()
    executor, _, task = open_executor(study)
    large, _ = run(executor, react(study, 4), task)
    small, _ = run(executor, react(study, 2), task)
    derived = asyncio.run(executor.derive(react(study, 4), large, [], 2))
    for made, own, whole in zip(derived, small, large, strict=True):
        assert made is not None
        assert (made.score, made.latency_s, made.tokens_in) == (
            own.score,
            own.latency_s,
            own.tokens_in,
        )
        assert made.reused.latency_s == made.latency_s
        assert (made.window, made.started_s) == (whole.window, whole.started_s)


def test_nobody_takes_a_replayed_run_for_one_at_a_smaller_budget(replayed: Replayed) -> None:
    study = replayed()
    executor, _, task = open_executor(study)
    runs, _ = run(executor, react(study, 4), task)
    assert asyncio.run(derive(task, runs[1:5], [], 1)) == (None,) * 4


def test_another_config_or_question_is_a_failed_trial_that_says_so(replayed: Replayed) -> None:
    study = replayed()
    executor, _, task = open_executor(study)
    with pytest.raises(TrialError, match="the table has no answer 0 to question"):
        run(executor, react(study, 4).model_copy(update={"workflow": "lats"}), task)


def test_provenance_is_the_tables_and_marked_and_what_is_called_is_the_studys(
    replayed: Replayed,
) -> None:
    study = replayed()
    executor, table, _ = open_executor(study)
    told = executor.provenance()
    assert told["machine"] == "another machine"
    assert told["replayed"] == {
        "study": "recorded",
        "recorded_on": "2026-01-31",
        "table": table.fingerprint,
    }
    model = told["models"]["loopback"]
    assert model["energy"] == {"source": "replayed rapl", "scope": "package-0"}
    assert model["settings"]["api_base"] == "http://127.0.0.1:9/v1"
    assert executor.fingerprint() == {"server of loopback": table.fingerprint}
    assert json.dumps(told)


def test_what_an_export_would_start_is_the_studys_and_no_strangers(
    make_study: MakeStudy, tmp_path: Path
) -> None:
    served = "models: {loopback: {serve: vllm, model: a/b, command: [mine], endpoint: completion}}"
    first = make_study(space=SPACE)
    swap = (first.path.read_text().splitlines()[4], served)
    own = make_study(space=SPACE, replace=swap)
    table = recorded(own)
    ran = table.header.provenance.models["loopback"].model_copy(
        update={
            "serve": {"command": ["theirs"], "engine": "theirs", "sha256": "f"},
            "settings": ModelSettings(model="m", api_base="http://theirs", api_key_env="KEY"),
        }
    )
    models = {
        "provenance": table.header.provenance.model_copy(update={"models": {"loopback": ran}})
    }
    changed = Table(table.header.model_copy(update=models), table.recorded, table.rows)
    changed.write(tmp_path / "study" / "t.jsonl")
    study = make_study(space=SPACE, replace=swap, extra="executor: {replay: t.jsonl}\n")
    told = open_executor(study)[0].provenance()["models"]["loopback"]
    assert (told["serve"]["command"], told["serve"]["engine"]) == (["mine"], "vllm")
    assert told["serve"]["sha256"] == "f"
    assert (told["settings"]["api_base"], told["settings"]["api_key_env"]) == (None, None)


def test_fewer_questions_are_the_first_and_the_holdout_the_last(replayed: Replayed) -> None:
    whole = replayed().load_task()
    listed = [example.id for example in (*whole.search, *whole.holdout)]
    study = replayed(replace=("examples: 10, holdout: 6", "examples: 4, holdout: 9"))
    task = study.load_task()
    assert [example.id for example in task.search] == listed[:4]
    assert [example.id for example in task.holdout] == listed[-9:]
    assert task.fingerprint() != whole.fingerprint()
    runs, _ = run(open_executor(study)[0], react(study, 4), task)
    assert [each.example_id for each in runs] == listed[:4]


def test_a_table_without_a_holdout_serves_for_both_splits(
    make_study: MakeStudy, tmp_path: Path
) -> None:
    def villages(examples: int, holdout: int, extra: str = "") -> LoadedStudy:
        task = f"{{name: villages, examples: {examples}, holdout: {holdout}, seed: 7}}"
        return make_study(
            space=SPACE,
            replace=("{name: jsonl, path: questions.jsonl, examples: 10, holdout: 6}", task),
            extra=extra,
        )

    first = villages(12, 0)
    recorded(first).write(tmp_path / "study" / "t.jsonl")
    study = villages(4, 6, "executor: {replay: t.jsonl}\n")
    task = study.load_task()
    assert [example.id for example in task.holdout] == [f"search-{n:03}" for n in range(7, 13)]
    assert len(run(open_executor(study)[0], react(study, 1), task)[0]) == 4


REFUSALS: Mapping[str, tuple[dict[str, Any], str]] = {
    "more questions": (
        {"replace": ("holdout: 6", "holdout: 7")},
        "has 16 questions, and the study asks for 10 examples and 7 others",
    ),
    "another seed": (
        {"replace": ("holdout: 6}", "holdout: 6, seed: 5}")},
        "was recorded on another task: seed is 5 here and was 0",
    ),
    "another model": (
        {"replace": ("openai/loopback", "openai/other")},
        r"models\.loopback\.model: is 'openai/other' here, and was 'openai/loopback'",
    ),
    "another name": (
        {"replace": ("{loopback:", "{elsewhere:")},
        "models: elsewhere is not in the table",
    ),
    "another load": (
        {"extra": "load: {concurrency: 2}\n"},
        r"load\.concurrency: is 2 here, and was 1",
    ),
    "another cache": ({"extra": "cache: shared\n"}, "cache: is 'shared' here, and was 'isolated'"),
    "more answers": (
        {"extra": "repeats: 2\n"},
        "the table lacks answers to the study's 32 questions",
    ),
    "a larger space": (
        {"space": SPACE.replace("[1, 2, 4]", "[1, 2, 4, 5]")},
        r"executor: the table lacks .*: react max_steps=5 thoughts=true; react max_steps=5",
    ),
    "a continuum": (
        {"space": SPACE.replace("few_shot: 0", "temperature: {low: 0.0, high: 1.0}")},
        "search_space: has a continuum of configs",
    ),
    "an objective": (
        {"replace": ("tokens_total]", "tokens_total, cost_usd]")},
        r"objectives: cost_usd: the table has no cost_usd of direct",
    ),
}


@pytest.mark.parametrize("change", REFUSALS)
def test_what_the_table_does_not_tell_of_is_refused_before_anything_runs(
    replayed: Replayed, change: str
) -> None:
    changes, message = REFUSALS[change]
    study = replayed(**changes)
    with pytest.raises(UserError, match=message) as refused:
        open_executor(study)
    assert refused.value.hint is not None or "models:" in str(refused.value)


def test_where_and_how_patiently_a_model_is_asked_does_not_matter(replayed: Replayed) -> None:
    study = replayed(server="http://127.0.0.1:8/v1", replace=("max_retries: 0", "max_retries: 5"))
    open_executor(study)


def test_no_other_load_is_told_of(replayed: Replayed) -> None:
    executor, _, _ = open_executor(replayed())
    assert executor.under(Load(concurrency=1)) is executor
    with pytest.raises(UserError, match=r"load\.concurrency: is None here, and was 1"):
        executor.under(Load(rate=2.0))


def test_a_table_that_is_not_there_is_refused(make_study: MakeStudy) -> None:
    study = make_study(extra="executor: {replay: nowhere.jsonl.gz}\n")
    with pytest.raises(UserError, match=r"nowhere\.jsonl\.gz: cannot be read"):
        study.load_task()


def test_an_executor_that_is_none_is_refused(make_study: MakeStudy) -> None:
    with pytest.raises(SpecError, match="executor"):
        make_study(extra="executor: {replay: ''}\n")


def test_runs_carry_nothing_that_was_not_recorded(replayed: Replayed) -> None:
    study = replayed()
    executor, _, task = open_executor(study)
    (first, *_), _ = run(executor, react(study, 4), task)
    told = asdict(first)
    assert (told["answer"], told["spans"], told["samples"]) == ("", (), ())
