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
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from tuner.errors import ServingError
from tuner.errors import StoreError
from tuner.errors import UserError
from tuner.events import ExampleFinished
from tuner.events import Talk
from tuner.events import TrialEnded
from tuner.results import Front
from tuner.spec import LoadedStudy
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


def optuna_trials(study: LoadedStudy) -> list[optuna.trial.FrozenTrial]:
    """The study's trials as Optuna and its dashboard see them."""
    storage = open_optuna_storage(study.storage_url)
    found = optuna.load_study(study_name=study.spec.name, storage=storage).get_trials()
    storage.engine.dispose()
    return found


def test_a_study_ends_with_every_trial_told_and_its_front_confirmed(make_study: MakeStudy) -> None:
    study = make_study(trials=6)
    events: list[Any] = []
    run_study(study, report=events.append)
    kept = contents(study)
    own = {number: trial for number, trial in kept.items() if trial[3] is None}
    assert len(own) == 6
    for state, _, values, _, examples in own.values():
        assert state == "complete"
        assert values["accuracy"] == np.mean([e[3] for e in examples if e[0] == "search"])
        assert [split for split, *_ in examples].count("search") == 10
    confirmed = [n for n, trial in own.items() if any(e[0] == "holdout" for e in trial[4])]
    assert confirmed
    assert all([e[0] for e in own[n][4]].count("holdout") == 6 for n in confirmed)
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
    assert sum(trial[3] is None for trial in after.values()) == 5


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


def test_failed_examples_count_and_too_many_fail_the_trial(
    make_study: MakeStudy, serve: Callable[..., Any]
) -> None:
    faults = ["400"] * 2  # the warm-up call has the first
    with serve("--script", "200", *faults) as address:
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

    with serve("--script", "200", *["400"] * 400) as address:
        study = make_study(folder="bad", server=address)
        with pytest.raises(UserError, match="3 trials in a row failed"):
            run_study(study)
    assert [trial[0] for trial in contents(study).values()] == ["failed"] * 3
    assert all("examples failed" in trial.user_attrs["failure"] for trial in optuna_trials(study))


def test_a_server_that_goes_away_ends_the_run_and_spoils_no_trial(
    make_study: MakeStudy, serve: Callable[..., Any]
) -> None:
    with ExitStack() as server:
        address = server.enter_context(serve())
        study = make_study(server=address)
        finished = 0

        def stop_server(event: object) -> None:
            nonlocal finished
            finished += isinstance(event, ExampleFinished)
            if finished == 13:
                server.close()

        where = re.escape(address)
        with pytest.raises(ServingError, match=where):
            run_study(study, report=stop_server)
        with pytest.raises(ServingError, match=where):
            run_study(study)
    kept = contents(study)
    assert sum(len(trial[4]) for trial in kept.values()) == 13
    assert {trial[0] for trial in kept.values()} == {"complete", "running"}


def test_token_counts_that_are_missing_fail_a_trial_for_that_reason(
    make_study: MakeStudy, serve: Callable[..., Any]
) -> None:
    with serve("--no-usage") as address:
        study = make_study(server=address)
        with pytest.raises(UserError, match="the server reported no token counts"):
            run_study(study)


def test_a_second_run_of_the_same_study_is_refused_while_the_first_lives(
    make_study: MakeStudy,
) -> None:
    study = make_study()

    def run_again(event: object) -> None:
        if isinstance(event, ExampleFinished):
            with pytest.raises(StoreError, match=f"being run by process {os.getpid()}"):
                run_study(study)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_study(study, report=run_again)
    run_study(study)
    assert sum(trial[3] is None for trial in contents(study).values()) == 6


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
    rng = np.random.default_rng(5)
    kills = 0
    with serve("--delay-s", "0.02") as address:
        study = make_study(folder="killed", trials=8, server=address)
        command = [sys.executable, "-c", "from tuner.cli import main; main()", "run"]
        while True:
            before = count_runs(study.path.parent / "tuner.db")
            process = subprocess.Popen(
                [*command, str(study.path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            # Some kills fall into the start-up, most a few examples later.
            until = before + int(rng.integers(0, 16))
            while process.poll() is None and count_runs(study.path.parent / "tuner.db") <= until:
                time.sleep(0.002)
            if process.poll() is not None:
                break
            time.sleep(float(rng.uniform(0, 0.05)))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
        assert process.communicate()[1] is not None
        assert process.returncode == 0
    assert kills >= 10
    kept = contents(study)
    assert kept == expected
    for trial in kept.values():
        assert max(Counter(e[:2] for e in trial[4]).values(), default=1) == 1
    assert all(trial.state.is_finished() for trial in optuna_trials(study))


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
