"""What of a study goes into a table, and what is run so that a table tells of a whole space."""

import asyncio
import gzip
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuner.derive import derive
from tuner.derive import with_budget
from tuner.errors import UserError
from tuner.executors.replay import ReplayExecutor
from tuner.record import largest
from tuner.record import measure_space
from tuner.record import read_table
from tuner.spec import LoadedStudy
from tuner.spec import load_study
from tuner.store import Store
from tuner.table import Table
from workflows.config import AgentConfig

MakeStudy = Callable[..., LoadedStudy]

SPACE = """\
format_version: 1
name: small
workflows:
  direct: {few_shot: 0}
  react: {max_steps: [1, 2, 4], thoughts: false, at_budget: [empty, answer]}
"""


def trials(study: LoadedStudy) -> list[AgentConfig]:
    """The configs of a study's trials, in order."""
    store = Store.open(study.storage_url, study.spec.name)
    found = [trial.config for trial in store.trials() if trial.config is not None]
    store.close()
    return found


def knobs(study: LoadedStudy, configs: Any) -> list[str]:
    """Configs in words."""
    return [study.label(config) for config in configs]


FEWER = ("examples: 10, holdout: 6", "examples: 3, holdout: 0")


@pytest.mark.slow
def test_a_whole_space_is_its_largest_budgets_and_what_their_checkpoints_do_not_tell(
    make_study: MakeStudy, tmp_path: Path
) -> None:
    study = make_study(space=SPACE, replace=FEWER)
    table = measure_space(study)
    # The loopback model never acts, so that with `answer` each budget ends with one more call.
    assert knobs(study, trials(study)) == [
        "direct",
        "react max_steps=4 at_budget=empty",
        "react max_steps=4 at_budget=answer",
        "react max_steps=1 at_budget=answer",
        "react max_steps=2 at_budget=answer",
    ]
    space = list(study.space.configs(study.models) or ())
    assert {config.hash() for config in space} <= {config.hash() for config in table.configs}
    calls = table.fields(space, ["llm_calls"])[:, :, 0]
    steps = [config.params.get("max_steps", 1) for config in space]
    more = [config.params.get("at_budget") == "answer" for config in space]
    assert calls.tolist() == [[a + b] * 3 for a, b in zip(steps, more, strict=True)]

    assert measure_space(study) == table
    assert len(trials(study)) == 5

    path = tmp_path / "study" / "t.jsonl.gz"
    table.write(path)
    text = gzip.decompress(path.read_bytes()).decode()
    for private in ("127.0.0.1", "forty", "Question", str(tmp_path)):
        assert private not in text

    replay = make_study(space=SPACE, replace=FEWER, extra="executor: {replay: t.jsonl.gz}\n")
    ReplayExecutor(Table.read(path), study=replay, task=replay.load_task())
    store = Store.open(study.storage_url, study.spec.name)
    for trial in store.trials():
        assert trial.config is not None
        kept, given = store.runs(trial.trial_id, "search"), table.runs(trial.config)
        for name in ("example_id", "score", "tokens_in", "tokens_out", "llm_calls", "tool_calls"):
            assert [getattr(run, name) for run in given] == [getattr(run, name) for run in kept]
        assert [run.latency_s for run in given] == pytest.approx(
            [run.latency_s for run in kept], abs=1e-6
        )
    store.close()


def test_a_study_is_recorded_as_far_as_it_is(keep: Any, found: Any, tmp_path: Path) -> None:
    rows = [(1, 2, 12), (0, 2, None), (1, 3, 13), (1, 2, 12)]
    keep(
        found("direct", {"few_shot": 2}, search=[(0, 1, 4)] * 4),
        found("react", {"max_steps": 2}, search=rows, holdout=rows[2:]),
        found("react", {"max_steps": 4}, search=[(1, 9, 40)] * 4, failure="3 of 4 examples failed"),
        found("react", {"max_steps": 2}, search=[], replay_of=1),
    )
    study = load_study(tmp_path / "study.yaml")
    task, table = study.load_task(), read_table(study)
    direct, two, four = table.recorded.values()
    assert [each.budget for each in (direct, two, four)] == [None, 2, 4]
    assert table.header.task.fingerprint == task.fingerprint()
    runs = table.runs(two.config)
    assert [run.example_id for run in runs] == [
        example.id for example in (*task.search, *task.holdout[:2])
    ]
    assert [run.energy_j for run in runs] == [12, None, 13, 12, 13, 12]
    assert runs[0].energy.source == "replayed cpu-estimate"
    assert [run.score for run in table.runs(four.config)] == [1] * 4


def test_a_table_tells_of_smaller_budgets_what_derived_runs_would(
    keep: Any, found: Any, tmp_path: Path
) -> None:
    keep(found("react", {"max_steps": 6}, search=[(1, 2, 12), (0, 2, None), (0, 3, 13), (1, 2, 9)]))
    study = load_study(tmp_path / "study.yaml")
    table, store = read_table(study), Store.open(study.storage_url, study.spec.name)
    (trial,) = store.trials()
    runs = store.runs(trial.trial_id, "search")
    store.close()
    assert trial.config is not None
    small = with_budget(trial.config, 1)
    derived = asyncio.run(derive(study.load_task(), runs, (), 1))
    for told, made in zip(table.runs(small), derived, strict=True):
        assert made is not None
        for name in ("score", "latency_s", "energy_j", "tokens_in", "llm_calls", "tool_calls"):
            wanted = getattr(made, name)
            assert getattr(told, name) == (wanted and pytest.approx(wanted, abs=1e-6)), name
    assert [run.score for run in table.runs(small)] == [1, 1, 1, 1]  # it was right, and went on


def test_a_derived_trial_is_recorded_where_it_was_given_questions_of_its_own(
    keep: Any, found: Any, tmp_path: Path
) -> None:
    keep(
        found("react", {"max_steps": 4}, search=[(1, 2, 12)] * 3),
        found("react", {"max_steps": 1}, search=[(1, 2, 12)] * 3),
        found("react", {"max_steps": 2}, search=[(1, 2, 12)] * 3 + [(0, 9, 90)]),
    )
    study = load_study(tmp_path / "study.yaml")
    with sqlite3.connect(tmp_path / "tuner.db") as database:
        database.execute("UPDATE tuner_trials SET derived_from = 0 WHERE trial_id > 1")
        database.execute(
            "UPDATE tuner_example_runs SET reused_s = latency_s WHERE trial_id > 1 AND score = 1"
        )
    database.close()
    recorded = read_table(study).recorded.values()
    assert [each.budget for each in recorded] == [4, 2]


def test_of_several_trials_of_a_config_the_complete_one_is_recorded(
    keep: Any, found: Any, tmp_path: Path
) -> None:
    keep(
        found("direct", {"few_shot": 0}, search=[(0, 1, 1)] * 4),
        found("direct", {"few_shot": 0}, search=[(0, 2, 2)] * 4, failure="the server was gone"),
    )
    (config,) = read_table(load_study(tmp_path / "study.yaml")).rows.values()
    assert [row.latency_s for row in config] == [1] * 4


def test_largest_keeps_what_differs_in_more_than_its_budget(make_study: MakeStudy) -> None:
    study = make_study(space=SPACE)
    assert knobs(study, largest(study)) == [
        "direct",
        "react max_steps=4 at_budget=empty",
        "react max_steps=4 at_budget=answer",
    ]


def test_nothing_to_record_is_refused(make_study: MakeStudy, keep: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_table(make_study())
    keep()
    with pytest.raises(UserError, match="has no evaluations to record"):
        read_table(load_study(tmp_path / "study.yaml"))


def test_a_continuum_cannot_be_recorded(make_study: MakeStudy) -> None:
    space = SPACE.replace("few_shot: 0", "temperature: {low: 0.0, high: 1.0}")
    with pytest.raises(UserError, match="has a continuum of configs"):
        measure_space(make_study(space=space))


def test_what_is_replayed_is_not_recorded_once_more(make_study: MakeStudy) -> None:
    study = make_study(extra="executor: {replay: t.jsonl.gz}\n")
    for record in (read_table, measure_space):
        with pytest.raises(UserError, match="its figures are replayed"):
            record(study)
