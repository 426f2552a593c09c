"""The ask/tell loop against a real server on loopback: states, resumption, replays, budgets, failures."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
import pytest
import sqlalchemy as sa

from tuner.check import check_study
from tuner.errors import ServingError
from tuner.errors import StoreError
from tuner.errors import UserError
from tuner.events import ExampleFinished
from tuner.events import PassStarted
from tuner.events import Talk
from tuner.events import TrialEnded
from tuner.results import Front
from tuner.serving import Endpoint
from tuner.spec import LoadedStudy
from tuner.spec import load_study
from tuner.store import Store
from tuner.store.schema import open_optuna_storage
from tuner.study import run_study

MakeStudy = Callable[..., LoadedStudy]


def contents(study: LoadedStudy) -> dict[int, Any]:
    """What was kept of each trial, less what no two runs share: state, config, values, examples and their answers."""
    store = Store.open(study.storage_url, study.spec.name)
    kept = {
        trial.number: (
            trial.state,
            trial.config,
            dict(trial.values or {}),
            trial.replay_of,
            sorted(
                (split, run.example_id, run.answer, run.score, run.tokens_in, run.tokens_out)
                for split in ("search", "holdout")
                for run in store.runs(trial.trial_id, split)
            ),
        )
        for trial in store.trials()
    }
    store.close()
    return kept


def own(study: LoadedStudy) -> dict[int, Any]:
    """The contents of trials that something was run for: no replays, nothing made of others' checkpoints."""
    store = Store.open(study.storage_url, study.spec.name)
    free = {trial.number for trial in store.trials() if trial.is_free}
    store.close()
    return {number: kept for number, kept in contents(study).items() if number not in free}


def stopped_trials(study: LoadedStudy) -> dict[int, str | None]:
    """Why trials were given no more questions."""
    store = Store.open(study.storage_url, study.spec.name)
    found = {trial.number: trial.stopped for trial in store.trials()}
    store.close()
    return found


def optuna_trials(study: LoadedStudy) -> list[optuna.trial.FrozenTrial]:
    """The study's trials as Optuna and its dashboard see them."""
    storage = open_optuna_storage(study.storage_url)
    found = optuna.load_study(study_name=study.spec.name, storage=storage).get_trials()
    storage.engine.dispose()
    return found


@pytest.mark.slow
def test_a_study_ends_with_every_trial_told_and_its_front_confirmed(make_study: MakeStudy) -> None:
    study = make_study(trials=6)
    events: list[Any] = []
    run_study(study, report=events.append)
    kept = contents(study)
    evaluated = {number: trial for number, trial in kept.items() if trial[3] is None}
    assert len(own(study)) == 6
    for state, _, values, _, examples in evaluated.values():
        assert state == "complete"
        assert values["accuracy"] == np.mean([e[3] for e in examples if e[0] == "search"])
        assert 0 < [split for split, *_ in examples].count("search") <= 10
    stopped = {number for number, trial in stopped_trials(study).items() if trial}
    assert all(
        ([e[0] for e in trial[4]].count("search") < 10) == (number in stopped)
        for number, trial in evaluated.items()
    )
    confirmed = [n for n, trial in evaluated.items() if any(e[0] == "holdout" for e in trial[4])]
    assert confirmed
    assert all([e[0] for e in evaluated[n][4]].count("holdout") == 6 for n in confirmed)
    told = optuna_trials(study)
    assert [trial.state.name for trial in told] == ["COMPLETE"] * len(told)
    assert {t.number: t.values for t in told} == {
        n: [trial[2]["accuracy"], trial[2]["tokens_total"]] for n, trial in kept.items()
    }
    assert sum(isinstance(event, TrialEnded) for event in events) == len(kept)


def test_a_cache_that_cannot_be_cleared_is_said_and_recorded(make_study: MakeStudy) -> None:
    study = make_study(trials=1)
    events: list[Any] = []
    run_study(study, report=events.append)
    said = [event.text for event in events if isinstance(event, Talk)]
    assert any("prefix cache cannot be emptied" in text for text in said)
    store = Store.open(study.storage_url, study.spec.name)
    row = store.row()
    assert row is not None
    assert row.provenance["models"]["loopback"]["cache"] == "salted: prompt"
    (trial, *_) = store.trials()
    isolation = [kept.isolation["loopback"] for kept in store.passes(trial.trial_id, "search")]
    assert isolation == ["salted: prompt (its server is of no known kind)"]


def test_a_shared_cache_is_left_alone_and_recorded_so(make_study: MakeStudy) -> None:
    study = make_study(trials=1, extra="cache: shared\n")
    events: list[Any] = []
    run_study(study, report=events.append)
    assert not any("cache" in event.text for event in events if isinstance(event, Talk))
    row = Store.open(study.storage_url, study.spec.name).row()
    assert row is not None
    assert row.provenance["models"]["loopback"]["cache"] == "shared"


@pytest.mark.slow
def test_running_again_adds_nothing_and_a_larger_budget_goes_on(make_study: MakeStudy) -> None:
    study = make_study(trials=3)
    run_study(study)
    before = contents(study)
    run_study(study)
    assert contents(study) == before
    larger = make_study(trials=5)
    run_study(larger)
    after = contents(larger)
    assert {n: trial[:4] for n, trial in after.items() if n in before} == {
        n: trial[:4] for n, trial in before.items()
    }
    assert len(own(larger)) == 5


@pytest.mark.slow
def test_a_study_interrupted_at_any_example_proposes_what_it_would_have_anyway(
    make_study: MakeStudy,
) -> None:
    whole = make_study(folder="whole")
    run_study(whole)
    pieces = make_study(folder="pieces")
    seen = 0

    def interrupt(event: object) -> None:
        nonlocal seen
        if isinstance(event, ExampleFinished):
            seen += 1
            if seen % 7 == 0:
                os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C does

    for _ in range(100):
        try:
            run_study(pieces, report=interrupt)
            break
        except KeyboardInterrupt:
            continue
    assert seen >= 14
    assert contents(pieces) == contents(whole)


@pytest.mark.slow
def test_a_config_that_was_evaluated_is_replayed_at_no_cost(make_study: MakeStudy) -> None:
    space = "format_version: 1\nname: tiny\nworkflows:\n  cot: {max_tokens: [64, 128, 256]}\n"
    study = make_study(trials=50, space=space)
    run_study(study)
    kept = contents(study)
    own = [trial for trial in kept.values() if trial[3] is None]
    assert len({trial[1].hash() for trial in own}) == len(own) == 3  # the space has no more
    for _, config, values, replay_of, examples in kept.values():
        if replay_of is not None:
            assert (config, values) == kept[replay_of][1:3]
            assert not examples
    told = optuna_trials(study)
    assert all(trial.state.is_finished() for trial in told)
    assert {t.number for t in told if "replay_of" in t.user_attrs} == {
        n for n, trial in kept.items() if trial[3] is not None
    }


@pytest.mark.slow
def test_constraints_are_told_and_keep_points_off_the_front(make_study: MakeStudy) -> None:
    study = make_study(extra='constraints: {tokens_total: "<= 30", latency_p95_s: "<= 1000"}\n')
    run_study(study)
    store = Store.open(study.storage_url, study.spec.name)
    feasible = {
        t.number: t.values["tokens_total"] <= 30 for t in store.trials() if t.values is not None
    }
    assert set(feasible.values()) == {True, False}
    assert {t.number: t.feasible for t in store.trials()} == feasible
    assert all(feasible[p.trial.number] for p in Front.read(study, store).search)
    for trial in optuna_trials(study):
        assert (trial.constraints["tokens_total"] <= 0) == feasible[trial.number]


def test_the_wall_clock_ends_a_search(make_study: MakeStudy) -> None:
    study = make_study(replace=("{trials: 6}", "{trials: 6, wall_clock: 0.001s}"))
    run_study(study)
    kept = contents(study)
    assert len(kept) == 1
    assert kept[0][0] == "complete"


@pytest.mark.slow
def test_failed_examples_count_and_too_many_fail_the_trial(
    make_study: MakeStudy, serve: Callable[..., Any]
) -> None:
    # The warm-up call has the first; after each failure the server is asked something short, and is well.
    faults = ["400", "200"]
    with serve("--script", "200", *faults * 2) as address:
        study = make_study(trials=1, server=address)
        run_study(study)
    state, _, values, _, _ = contents(study)[0]
    store = Store.open(study.storage_url, study.spec.name)
    runs = store.runs(store.trial_id(0), "search")
    failed = [run for run in runs if run.error is not None]
    assert state == "complete"
    assert failed
    assert all(run.score == 0 and run.latency_s > 0 for run in failed)
    assert values["accuracy"] == np.mean([run.score for run in runs])
    assert len(runs) == 10

    # The short calls by which it is looked at are answered, those of every config refused.
    with serve("--most-tokens", "8") as address:
        study = make_study(folder="bad", server=address)
        with pytest.raises(UserError, match="3 trials in a row failed"):
            run_study(study)
    assert [trial[0] for trial in contents(study).values()] == ["failed"] * 3
    assert all("examples failed" in trial.user_attrs["failure"] for trial in optuna_trials(study))


@pytest.mark.slow
def test_a_server_that_goes_away_is_waited_for_and_spoils_no_trial(
    make_study: MakeStudy, serve: Callable[..., Any]
) -> None:
    with ExitStack() as servers:
        first = servers.enter_context(ExitStack())
        address = first.enter_context(serve())
        port = address.rpartition(":")[2].removesuffix("/v1")
        study = make_study(server=address)
        finished, said = 0, []

        def stop_and_start_server(event: object) -> None:
            nonlocal finished
            finished += isinstance(event, ExampleFinished)
            if finished == 13:
                first.close()
            if isinstance(event, Talk) and "the study waits" in event.text:
                said.append(event.text)
                servers.enter_context(serve("--port", port))
            if isinstance(event, Talk) and "answers again" in event.text:
                said.append(event.text)

        began_s = time.perf_counter()
        run_study(study, report=stop_and_start_server)
        took_s = time.perf_counter() - began_s
    assert len(said) == 2
    assert address in said[0]
    assert "waiting costs nothing of its budget" in said[0]
    assert re.search(rf"{re.escape(address)} answers again, after \d+ s", said[1])
    kept = contents(study)
    assert {trial[0] for trial in kept.values()} == {"complete"}
    store = Store.open(study.storage_url, study.spec.name)
    row = store.row()
    assert row is not None
    assert row.search_s < took_s - 1  # the second that it waited at least
    for trial in store.trials():
        for split in ("search", "holdout"):
            runs = store.runs(trial.trial_id, split)
            assert [run.error for run in runs] == [None] * len(runs)
            assert max(Counter(run.example_id for run in runs).values(), default=1) == 1
    store.close()


def test_a_server_that_is_not_there_ends_the_run_before_a_trial(
    make_study: MakeStudy, serve: Callable[..., Any]
) -> None:
    with serve() as address:
        study = make_study(server=address)
    with pytest.raises(ServingError, match=re.escape(address)):
        run_study(study)
    assert contents(study) == {}


@pytest.mark.slow
def test_token_counts_that_are_missing_fail_a_trial_for_that_reason(
    make_study: MakeStudy, serve: Callable[..., Any]
) -> None:
    with serve("--no-usage") as address:
        study = make_study(server=address)
        with pytest.raises(UserError, match="the server reported no token counts"):
            run_study(study)


@pytest.mark.slow
def test_a_second_run_of_the_same_study_is_refused_while_the_first_lives(
    make_study: MakeStudy,
) -> None:
    study = make_study()

    def run_again(event: object) -> None:
        if isinstance(event, ExampleFinished):
            refused = f"being run by process {os.getpid()}"
            with ThreadPoolExecutor(1) as pool, pytest.raises(StoreError, match=refused):
                pool.submit(run_study, study).result()
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_study(study, report=run_again)
    run_study(study)
    assert len(own(study)) == 6


@pytest.mark.slow
def test_a_changed_task_or_space_is_refused_and_named(make_study: MakeStudy) -> None:
    run_study(make_study(trials=1))
    with pytest.raises(StoreError, match="another task"):
        run_study(make_study(trials=1, replace=("holdout: 6", "holdout: 5")))
    with pytest.raises(StoreError, match="another search space"):
        run_study(make_study(trials=1, space=SPACE_WITHOUT_REACT))
    run_study(make_study(trials=2, replace=("seed: 3", "seed: 4")))


SPACE_WITHOUT_REACT = "format_version: 1\nname: small\nworkflows:\n  cot: {max_tokens: [64, 128]}\n"


@pytest.mark.slow
def test_no_kill_loses_or_repeats_an_example(
    make_study: MakeStudy, serve: Callable[..., Any]
) -> None:
    """kill -9 at random moments, at least 10 times, then the end: the same records as a run in one piece."""
    whole = make_study(folder="whole", trials=8)
    run_study(whole)
    expected = contents(whole)
    with serve("--delay-s", "0.02") as address:
        study = make_study(folder="killed", trials=8, server=address)
        kills = kill_until_done(study, up_to=8)
    assert kills >= 10
    kept = contents(study)
    assert kept == expected
    for trial in kept.values():
        assert max(Counter(e[:2] for e in trial[4]).values(), default=1) == 1
    assert all(trial.state.is_finished() for trial in optuna_trials(study))


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["", "repeats: 2\nwarm_start: [../earlier/study.yaml]\n"])
def test_a_kill_between_any_two_writes_changes_nothing(make_study: MakeStudy, extra: str) -> None:
    """Whatever state a run left its database in for a moment, gone on with: the same records as a run in one piece."""
    few = {"trials": 3, "replace": ("examples: 10, holdout: 6", "examples: 2, holdout: 2")}
    earlier = make_study(folder="earlier", **few)
    text = earlier.path.read_text().replace("name: small", "name: earlier")
    earlier.path.write_text(text.replace("seed: 3", "seed: 9"))
    run_study(load_study(earlier.path))
    whole = make_study(folder="whole", extra=extra, **few)
    states = run_and_keep_states(whole)
    kept, told = contents(whole), [(t.state, t.values) for t in optuna_trials(whole)]
    between = 0
    for number, state in enumerate(states):
        study = make_study(folder=f"state-{number}", extra=extra, **few)
        between += take_over(study, state)
        run_study(study)
        assert contents(study) == kept, number
        assert [(t.state, t.values) for t in optuna_trials(study)] == told, number
    assert between >= 3  # once for each trial


@pytest.mark.slow
def test_a_kill_between_any_two_writes_of_a_pooled_search_loses_and_repeats_nothing(
    make_study: MakeStudy,
) -> None:
    def make(folder: str) -> LoadedStudy:
        few = ("examples: 10, holdout: 6", "examples: 2, holdout: 2")
        study = make_study(folder=folder, trials=3, replace=few)
        study.path.write_text(study.path.read_text().replace("name: tpe", "name: pooled"))
        return load_study(study.path)

    whole = make("whole")
    for number, state in enumerate(run_and_keep_states(whole)):
        study = make(f"state-{number}")
        take_over(study, state)
        before = answers(study)
        run_study(study)
        after = answers(study)
        assert before.items() <= after.items(), number
        assert len(asked(after)) == len(asked(answers(whole))), number
        for ours, optunas in zip(own_values(study), optuna_trials(study), strict=True):
            assert optunas.state.is_finished(), number
            assert ours == optunas.values, number


def run_and_keep_states(study: LoadedStudy) -> list[bytes]:
    """Run it; the database as it was before each commit, which is as a kill in between leaves it."""
    states: dict[bytes, None] = {}

    def keep(connection: sa.Connection) -> None:
        with closing(sqlite3.connect(study.path.parent / "tuner.db")) as database:
            states[database.serialize()] = None

    sa.event.listen(sa.Engine, "commit", keep)  # which is called before each
    try:
        run_study(study)
    finally:
        sa.event.remove(sa.Engine, "commit", keep)
    assert len(states) > 50
    return list(states)


def take_over(study: LoadedStudy, state: bytes) -> bool:
    """Give a study a database whose owner is dead; whether a trial of it is complete for us and not yet for Optuna."""
    path = study.path.parent / "tuner.db"
    path.write_bytes(state)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        try:
            database.execute("UPDATE tuner_studies SET owner = NULL")
            query = "SELECT count(*) FROM trials JOIN tuner_trials USING (trial_id) WHERE state = 'RUNNING' AND objectives LIKE '{%'"
            return bool(database.execute(query).fetchone()[0])
        except sqlite3.OperationalError:  # before there are tables
            return False


def answers(study: LoadedStudy) -> dict[tuple[Any, ...], float]:
    """When each question was begun that was answered: by trial, split, question and what it took over."""
    with closing(sqlite3.connect(study.path.parent / "tuner.db")) as database:
        query = "SELECT trial_id, split, example_id, repeat, reused_s >= latency_s, started_s FROM tuner_example_runs"
        try:
            return {tuple(row[:-1]): row[-1] for row in database.execute(query)}
        except sqlite3.OperationalError:
            return {}


def asked(answers: Mapping[tuple[Any, ...], float]) -> list[tuple[Any, ...]]:
    """Those of the search that were asked for, and not made of other trials' checkpoints."""
    return [key for key in answers if key[1] == "search" and not key[-1]]


def own_values(study: LoadedStudy) -> list[list[float] | None]:
    """What we have of each trial, as Optuna is told it."""
    with closing(Store.open(study.storage_url, study.spec.name)) as store:
        return [
            trial.values and [trial.values[name] for name in study.spec.objectives]
            for trial in store.trials()
        ]


def kill_until_done(study: LoadedStudy, *, up_to: int) -> int:
    """How often the study's run was killed, some examples after each start, until it came to its end."""
    command = [sys.executable, "-c", "from tuner.cli import main; main()", "run", str(study.path)]
    database = study.path.parent / "tuner.db"
    rng = np.random.default_rng(5)
    kills = 0
    while True:
        before = count_runs(database)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        # Some kills fall into the start-up, most a few examples later.
        until = before + int(rng.integers(0, up_to))
        while process.poll() is None and count_runs(database) <= until:
            time.sleep(0.002)
        if process.poll() is not None:
            said = process.communicate()[1].decode()
            assert process.returncode == 0, said
            return kills
        time.sleep(float(rng.uniform(0, 0.05)))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1


def count_runs(database: Path) -> int:
    """Example runs that are on disk; 0 before there is a table."""
    if not database.exists():
        return 0
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)
    try:
        return int(connection.execute("SELECT count(*) FROM tuner_example_runs").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()


ROLES = """\
format_version: 1
name: roles
workflows:
  reflexion: {max_trials: 2, max_steps: 1, judge_model: [actor, other], reflection_model: other}
"""


@pytest.mark.slow
def test_every_model_that_has_a_role_is_called_and_recorded(
    make_study: MakeStudy, serve: Callable[..., Any]
) -> None:
    with serve("--text", " nothing") as other:
        added = f'models: {{other: {{model: hosted_vllm/loopback, api_base: "{other}", max_retries: 0}}, '
        study = make_study(trials=4, space=ROLES, replace=("models: {", added))
        run_study(study)
    store = Store.open(study.storage_url, study.spec.name)
    own = [trial for trial in store.trials() if trial.replay_of is None]
    assert len(own) == 3
    for trial in own:
        assert trial.config is not None
        called = {
            span.name
            for run in store.runs(trial.trial_id, "search")
            for span in run.spans
            if span.kind == "llm"
        }
        named = {"loopback": "openai/loopback", "other": "hosted_vllm/loopback"}
        assert called == {named[name] for name in trial.config.models()}
    store.close()


ASKED = """\
task: {name: jsonl, path: questions.jsonl, examples: 10, holdout: 6}
search_space: space.yaml
models: {loopback: {model: openai/loopback, api_base: "", max_retries: 0}}
"""
SERVED = """\
task: {{name: jsonl, path: questions.jsonl, examples: 4, holdout: 2}}
search_space: space.yaml
models:
  other: {{model: openai/loopback, api_base: "{other}", max_retries: 0}}
  served: {{{served}, max_retries: 0}}
"""
VARIANTS = ("served@prefix_cache=true", "served@prefix_cache=false")

MakeServed = Callable[..., LoadedStudy]


@pytest.fixture
def make_served(make_study: MakeStudy, stand_in: Any, api_base: str) -> MakeServed:
    """Writes a small study one of whose models is started with and without its prefix cache."""

    def make(
        *,
        knobs: str = "prefix_cache: [true, false]",
        behaviour: str = "",
        other: bool = False,
        **options: Any,
    ) -> LoadedStudy:
        command = ", ".join(stand_in.command)
        program = f"serve: vllm, model: a/b, endpoint: completion, command: [{command}]"
        served = f'{program}, environment: {{STAND_IN: "{behaviour}"}}, {knobs}'
        text = SERVED.format(served=served, other=api_base)
        if not other:
            text = "".join(line for line in text.splitlines(True) if "  other:" not in line)
        return make_study(server="", replace=(ASKED, text), **options)

    return make


def variants(study: LoadedStudy) -> list[str]:
    """How the model of each trial was served, in the order of their numbers."""
    return [trial[1].model for trial in contents(study).values()]


def changes(names: Sequence[str]) -> int:
    return sum(one != other for one, other in pairwise(names))


@pytest.mark.slow
def test_trials_of_one_server_are_run_in_a_row(make_served: MakeServed, stand_in: Any) -> None:
    study = make_served(trials=12)
    order: list[str] = []

    def note(event: object) -> None:
        if isinstance(event, PassStarted) and event.split == "search":
            order.append(event.config.model)

    run_study(study, report=note)

    kept = contents(study)
    assert {trial[0] for trial in kept.values()} == {"complete"}
    assert len(own(study)) == 12 == len(order)
    assert set(variants(study)) == set(VARIANTS)
    # At most one change of servers for a batch of 8, one for the 4 left, and one for the holdout questions.
    assert len(stand_in.starts()) <= 4
    assert changes(order) <= 2 < changes(variants(study))
    assert all(trial.state.name == "COMPLETE" for trial in optuna_trials(study))


@pytest.mark.slow
def test_what_served_a_trial_is_recorded_with_it(make_served: MakeServed) -> None:
    study = make_served(trials=4)
    run_study(study)
    store = Store.open(study.storage_url, study.spec.name)
    row = store.row()
    assert row is not None
    assert set(row.provenance["models"]) == set(variants(study)) == set(VARIANTS)
    for name, cached in zip(VARIANTS, (True, False), strict=True):
        assert row.provenance["models"][name]["serve"]["prefix_cache"] is cached
        assert f"server of {name}" in row.fingerprint
    for trial in store.trials():
        assert trial.config is not None
        runs = store.runs(trial.trial_id, "search")
        served = VARIANTS.index(trial.config.model)
        assert {run.tokens_cached for run in runs if run.llm_calls == 1} <= {(8, 0)[served]}
    store.close()


@pytest.mark.slow
def test_models_with_and_without_choices_are_served_side_by_side(
    make_served: MakeServed, stand_in: Any
) -> None:
    study = make_served(trials=10, other=True)
    run_study(study)
    assert set(variants(study)) == {"other", *VARIANTS}
    assert len(stand_in.starts()) <= 4


@pytest.mark.slow
def test_a_study_with_choices_proposes_the_same_wherever_it_is_interrupted(
    make_served: MakeServed, stand_in: Any
) -> None:
    whole = make_served(folder="whole", trials=10)
    run_study(whole)
    pieces = make_served(folder="pieces", trials=10)
    seen = 0

    def interrupt(event: object) -> None:
        nonlocal seen
        starting = isinstance(event, Talk) and event.text.startswith("stopping")
        if isinstance(event, ExampleFinished) or starting:
            seen += 1
            if seen % 11 == 0 or (starting and seen % 2):
                os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C does

    for _ in range(100):
        try:
            run_study(pieces, report=interrupt)
            break
        except KeyboardInterrupt:
            continue
    assert seen >= 40
    assert contents(pieces) == contents(whole)
    assert all(trial.state.is_finished() for trial in optuna_trials(pieces))
    for start in stand_in.starts():
        assert not psutil.pid_exists(start["pid"])


@pytest.mark.slow
def test_no_kill_of_a_study_with_choices_loses_an_example_or_leaves_a_server(
    make_served: MakeServed, stand_in: Any
) -> None:
    whole = make_served(folder="whole", trials=10)
    run_study(whole)
    study = make_served(folder="killed", trials=10)
    assert kill_until_done(study, up_to=20) >= 2
    assert contents(study) == contents(whole)
    assert all(trial.state.is_finished() for trial in optuna_trials(study))
    deadline_s = time.monotonic() + 20
    while any(psutil.pid_exists(start["pid"]) for start in stand_in.starts()):
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


@pytest.mark.slow
def test_a_batch_is_asked_for_as_a_whole_also_after_an_interruption(
    make_served: MakeServed,
) -> None:
    whole = make_served(folder="whole", trials=9)
    run_study(whole)
    expected = contents(whole)
    study = make_served(folder="killed", trials=9)

    def stop(event: object) -> None:
        if isinstance(event, PassStarted):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(study, report=stop)
    told = optuna_trials(study)
    assert {trial.state.name for trial in told} == {"RUNNING"}
    assert len({trial[1].hash() for trial in contents(study).values()}) == 8
    assert told[0].user_attrs["batch"] == 8
    for asked in (1, 5):
        killed = make_served(folder=f"killed-{asked}", trials=9)
        with (
            closing(sqlite3.connect(study.path.parent / "tuner.db")) as kept,
            closing(sqlite3.connect(killed.path.parent / "tuner.db")) as connection,
            connection,
        ):
            kept.backup(connection)
            # As if it had been killed when it had asked for so many.
            connection.execute("DELETE FROM trials WHERE number >= ?", [asked])
            unsettled = ("tuner_trials", "trial_params", "trial_user_attributes")
            for table in unsettled if asked == 1 else ():
                connection.execute(f"DELETE FROM {table}")
        run_study(killed)
        assert contents(killed) == expected


@pytest.mark.slow
def test_a_variant_that_does_not_start_fails_its_trials_and_no_others(
    make_served: MakeServed, stand_in: Any
) -> None:
    study = make_served(trials=10, knobs="kv_cache_dtype: [auto, fp8]", behaviour="refuses=fp8")
    run_study(study)
    kept = contents(study)
    bad = [trial for trial in kept.values() if trial[1].model == "served@kv_cache_dtype=fp8"]
    assert len(bad) >= 3
    assert all(trial[0] == "failed" for trial in bad)
    assert all(trial[0] == "complete" for trial in kept.values() if trial not in bad)
    reasons = [
        trial.user_attrs["failure"] for trial in optuna_trials(study) if trial.state.name == "FAIL"
    ]
    assert sum("fp8 is not supported on this device" in reason for reason in reasons) == 1
    assert all("served@kv_cache_dtype=fp8 does not start" in reason for reason in reasons)
    assert sum("fp8" in start["line"] for start in stand_in.starts()) == 1


def test_a_first_server_that_does_not_start_ends_the_run_before_a_trial(
    make_served: MakeServed,
) -> None:
    study = make_served(trials=2, knobs="kv_cache_dtype: [fp8, auto]", behaviour="refuses=fp8")
    with pytest.raises(ServingError, match="fp8 is not supported on this device"):
        run_study(study)
    assert contents(study) == {}


@pytest.mark.slow
def test_a_server_of_ours_that_crashes_is_started_again_and_spoils_no_trial(
    make_served: MakeServed, stand_in: Any
) -> None:
    study = make_served(trials=8)
    finished, said = 0, []

    def kill(event: object) -> None:
        nonlocal finished
        finished += isinstance(event, ExampleFinished)
        if finished == 6 and isinstance(event, ExampleFinished):
            os.kill(stand_in.starts()[-1]["pid"], signal.SIGKILL)
        if isinstance(event, Talk):
            said.append(event.text)

    run_study(study, report=kill)
    again = [text for text in said if "started again" in text]
    assert (
        len(again) == 1 or len(again) == 2
    )  # noticed while it was asked, or before the next trial, or both
    assert re.search(r"the vllm server (has stopped \(signal 9\)|does not answer)", again[0])
    kept = contents(study)
    assert {trial[0] for trial in kept.values()} == {"complete"}
    for trial in kept.values():
        assert max(Counter(e[:2] for e in trial[4]).values(), default=1) == 1


@pytest.mark.slow
def test_when_the_time_is_up_what_was_asked_for_is_left_out(make_served: MakeServed) -> None:
    study = make_served(trials=12)
    text = study.path.read_text()
    study.path.write_text(text.replace("{trials: 12}", "{trials: 12, wall_clock: 0.001s}"))
    run_study(load_study(study.path))
    states = Counter(trial[0] for trial in contents(study).values())
    assert states["complete"] == 1
    assert states["failed"] >= 7
    assert {t.user_attrs.get("failure") for t in optuna_trials(study)} == {
        None,
        "the budget was spent before its turn came",
    }
    study.path.write_text(text.replace("{trials: 12}", "{trials: 3}"))
    run_study(load_study(study.path))
    assert Counter(trial[0] for trial in own(study).values())["complete"] == 3


@pytest.mark.slow
def test_check_shows_every_value_of_every_serving_knob(
    make_served: MakeServed, stand_in: Any
) -> None:
    study = make_served(
        trials=16, knobs="prefix_cache: [true, false], max_num_seqs: [2, 4, 8]", other=True
    )
    forecast = check_study(study)
    lines = [start["line"] for start in stand_in.starts()]
    seen = {line[line.index("--max-num-seqs") + 1] for line in lines}
    assert seen == {"2", "4", "8"}
    assert {"--enable-prefix-caching" in line for line in lines} == {True, False}
    assert len(lines) == 3
    assert 0 < forecast.restarts < 16
    assert 0 < forecast.start_s < 60
    bad = make_served(
        folder="bad", trials=4, knobs="kv_cache_dtype: [auto, fp8]", behaviour="refuses=fp8"
    )
    with pytest.raises(ServingError, match="fp8 is not supported on this device"):
        check_study(bad)


@pytest.mark.slow
def test_a_real_server_without_a_prefix_cache_finds_nothing_cached(
    make_study: MakeStudy, smollm2: Endpoint
) -> None:
    space = "format_version: 1\nname: tiny\nworkflows:\n  direct: {max_tokens: 2, few_shot: 0}\n"
    served = "serve: llama.cpp, weights: smollm2-135m-instruct, context: 512"
    text = SERVED.format(served=f"{served}, prefix_cache: [true, false]", other="").splitlines(True)
    model = "".join(line for line in text if "  other:" not in line)
    study = make_study(trials=2, server="", space=space, replace=(ASKED, model))
    run_study(study)
    store = Store.open(study.storage_url, study.spec.name)
    cached: dict[str, list[int | None]] = {name: [] for name in VARIANTS}
    for trial in store.trials():
        assert trial.config is not None
        runs = store.runs(trial.trial_id, "search")
        cached[trial.config.model] += [run.tokens_cached for run in runs]
    store.close()
    with_cache, without = (cached[name] for name in VARIANTS)
    assert set(without) == {0}
    assert len(without) == 4
    # The questions begin alike; what an earlier trial asked is out of reach.
    assert min(n or 0 for n in with_cache) == 0 < max(n or 0 for n in with_cache)
