"""How questions are spent, against a real server on loopback: by blocks, by races, from checkpoints, from other studies."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import sqlalchemy as sa

from tuner.derive import smaller
from tuner.events import ExampleFinished
from tuner.events import FrontExpected
from tuner.events import Talk
from tuner.records import TrialRecord
from tuner.results import Front
from tuner.spec import LoadedStudy
from tuner.store import Store
from tuner.store import schema
from tuner.store import tables
from tuner.store.schema import open_optuna_storage
from tuner.study import run_study

MakeStudy = Callable[..., LoadedStudy]
POOLED = ("sampler: {name: tpe, seed: 3}", "sampler: {name: pooled, seed: 3}")


def trials(study: LoadedStudy) -> list[TrialRecord]:
    store = Store.open(study.storage_url, study.spec.name)
    found = store.trials()
    store.close()
    return found


def answers(study: LoadedStudy) -> dict[int, list[tuple[str, bool]]]:
    """(question, whether it cost anything) by trial."""
    store = Store.open(study.storage_url, study.spec.name)
    found = {
        trial.number: [
            (run.example_id, run.reused.latency_s < run.latency_s)
            for run in store.runs(trial.trial_id, "search")
        ]
        for trial in store.trials()
    }
    store.close()
    return found


def paid_blocks(answers: dict[int, list[tuple[str, bool]]]) -> int:
    """How many blocks of six were asked at least."""
    return sum(costs for runs in answers.values() for _, costs in runs) // 6


def told_study(study: LoadedStudy) -> optuna.Study:
    """The study as Optuna and its dashboard see it, held in memory."""
    storage = open_optuna_storage(study.storage_url)
    stored = optuna.load_study(study_name=study.spec.name, storage=storage)
    copy = optuna.create_study(directions=stored.directions)
    copy.add_trials(stored.get_trials())
    storage.engine.dispose()
    return copy


@pytest.mark.slow
def test_the_pooled_sampler_spends_the_questions_of_its_trials_and_tells_every_one(
    make_study: MakeStudy,
) -> None:
    study = make_study(trials=5, replace=POOLED)
    heard: list[FrontExpected] = []
    run_study(study, report=lambda event: heard.append(event) if isinstance(event, FrontExpected) else None)  # fmt: skip
    kept, asked = trials(study), answers(study)
    # After each block it says what front it expects, the best first, each with answers of its own.
    assert len(heard) >= paid_blocks(asked)
    for each in heard[-1].configs:
        assert list(each.values) == list(study.spec.objectives)
        assert 6 <= each.answered <= 10
    accuracies = [each.values["accuracy"] for each in heard[-1].configs]
    assert accuracies == sorted(accuracies, reverse=True)
    paid = sum(costs for runs in asked.values() for _, costs in runs)
    assert 50 <= paid < 56
    assert {trial.state for trial in kept} == {"complete"}
    hashes = [trial.config.hash() for trial in kept if trial.config is not None]
    assert len(set(hashes)) == len(hashes) > 5
    for trial in kept:
        runs = asked[trial.number]
        assert len({question for question, _ in runs}) == len(runs)
        assert (trial.stopped is None) == (len(runs) == 10)
    assert any(trial.stopped is None for trial in kept)
    best = {trial.number for trial in told_study(study).best_trials}
    assert not best & {trial.number for trial in kept if trial.stopped is not None}
    assert {trial.state.name for trial in told_study(study).get_trials()} == {"COMPLETE"}
    on_front = {point.trial.number for point in Front.read(study).search}
    assert on_front
    assert all(kept[number].stopped is None for number in on_front)


@pytest.mark.slow
def test_a_pooled_study_that_was_interrupted_goes_on_and_asks_nothing_twice(
    make_study: MakeStudy,
) -> None:
    study = make_study(trials=5, replace=POOLED)
    finished = 0

    def interrupt(event: object) -> None:
        nonlocal finished
        finished += isinstance(event, ExampleFinished)
        if finished in (8, 21):
            finished += 1
            os.kill(os.getpid(), signal.SIGINT)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_study(study, report=interrupt)
    assert "running" in {trial.state for trial in trials(study)}
    # In the middle of it the front is what the sampler expects.
    command = [str(Path(sys.executable).parent / "tuner"), "front", str(study.path)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "Expected front, by all answers so far" in shown
    run_study(study, report=interrupt)
    assert {trial.state for trial in trials(study)} == {"complete"}
    paid = [pair for runs in answers(study).values() for pair in runs if pair[1]]
    assert 50 <= len(paid) < 56


@pytest.mark.slow
def test_a_larger_budget_takes_over_what_stopped_trials_have(make_study: MakeStudy) -> None:
    run_study(make_study(trials=3, replace=POOLED))
    study = make_study(trials=12, replace=POOLED)
    before = {trial.number: trial for trial in trials(study)}
    stopped = {t.config.hash() for t in before.values() if t.stopped is not None and t.config}
    run_study(study)
    after = trials(study)
    again = [t for t in after if t.number not in before and t.config and t.config.hash() in stopped]
    assert again
    asked = answers(study)
    for trial in again:
        assert any(not costs for _, costs in asked[trial.number])
        questions = [question for question, _ in asked[trial.number]]
        assert len(set(questions)) == len(questions)


@pytest.mark.slow
def test_smaller_budgets_are_told_from_checkpoints(make_study: MakeStudy) -> None:
    study = make_study(trials=6, extra="racing: false\n")
    run_study(study)
    kept, asked = {trial.number: trial for trial in trials(study)}, answers(study)
    derived = [trial for trial in kept.values() if trial.derived_from is not None]
    assert derived
    for trial in derived:
        assert trial.derived_from is not None
        parent = kept[trial.derived_from]
        assert trial.config is not None
        assert parent.config is not None
        assert trial.config.params["max_steps"] < parent.config.params["max_steps"]
        assert not any(costs for _, costs in asked[trial.number])
        assert len(asked[trial.number]) == 10
        assert trial.values is not None
        assert parent.values is not None
        assert trial.values["tokens_total"] <= parent.values["tokens_total"]
    assert {trial.state.name for trial in told_study(study).get_trials()} == {"COMPLETE"}


@pytest.mark.slow
def test_what_runs_say_of_smaller_budgets_is_looked_at_once_or_when_the_run_goes_on(
    make_study: MakeStudy,
) -> None:
    study = make_study(trials=6, extra="racing: false\n")
    run_study(study)
    store = Store.open(study.storage_url, study.spec.name)
    before, looked_at = store.trials(), store.derived()
    assert looked_at == {
        trial.trial_id
        for trial in before
        if trial.config is not None and not trial.is_free
        if smaller(study.space, study.models, trial.config)
    }
    with schema.make_engine(study.storage_url).begin() as connection:  # as if killed before it
        connection.execute(sa.update(tables.trials).values(is_derived_from=None))
    run_study(study)
    after = store.trials()
    assert (after, store.derived()) == (before, looked_at)
    store.close()


@pytest.mark.slow
def test_a_trial_that_is_beaten_for_sure_is_stopped_and_never_on_the_front(
    make_study: MakeStudy,
) -> None:
    larger: dict[str, Any] = {"replace": ("examples: 10", "examples: 40"), "questions": 46}
    study = make_study(trials=6, **larger)
    run_study(study)
    kept = trials(study)
    stopped = [trial for trial in kept if trial.stopped is not None]
    assert stopped
    asked = answers(study)
    for trial in stopped:
        assert 6 <= len(asked[trial.number]) < 40
        assert "beats it" in str(trial.stopped)
    on_front = {point.trial.number for point in Front.read(study).search}
    assert not on_front & {trial.number for trial in stopped}
    whole = make_study(folder="whole", trials=6, extra="racing: false\n", **larger)
    run_study(whole)
    assert not any(trial.stopped for trial in trials(whole))
    beaten = {t.config.hash() for t in stopped if t.config is not None}
    front = {p.trial.config.hash() for p in Front.read(whole).search if p.trial.config is not None}
    assert not beaten & front


@pytest.mark.slow
def test_published_defaults_come_first(make_study: MakeStudy) -> None:
    for options in ({}, {"replace": POOLED, "folder": "pooled"}):
        study = make_study(trials=6, **options)  # type: ignore[arg-type]
        run_study(study)
        first = [t.config for t in trials(study) if t.derived_from is None][:3]
        assert first == study.space.defaults(study.models)


@pytest.mark.slow
def test_questions_are_asked_again_where_the_front_is_uncertain(make_study: MakeStudy) -> None:
    study = make_study(trials=6, extra="repeats: 2\nracing: false\n")
    said: list[str] = []

    def note(event: object) -> None:
        if isinstance(event, Talk):
            said.append(event.text)

    run_study(study, report=note)
    again = [text for text in said if "asked once more" in text]
    store = Store.open(study.storage_url, study.spec.name)
    repeats = [
        {run.repeat for run in store.runs(trial.trial_id, "search")} for trial in store.trials()
    ]
    store.close()
    assert len(again) == sum(found == {0, 1} for found in repeats)
    uncertain = [p for p in Front.read(study).search if 0.1 <= p.membership <= 0.9]
    assert bool(again) or not uncertain


@pytest.mark.slow
def test_a_warm_start_takes_over_what_holds_and_pays_nothing(make_study: MakeStudy) -> None:
    first = make_study(trials=4)
    run_study(first)
    for name, pooled in (("second", False), ("third", True)):
        text = first.path.read_text().replace("name: small", f"name: {name}")
        text = text.replace(*POOLED) if pooled else text
        path = first.path.with_name(f"{name}.yaml")
        path.write_text(text + "warm_start: [small]\n")
        from tuner.spec import load_study

        study = load_study(path)
        run_study(study)
        reused = [trial for trial in trials(study) if trial.reused_from is not None]
        assert {t.reused_from for t in reused} <= {f"small/{t.number}" for t in trials(first)}
        whole = [t for t in trials(first) if t.state == "complete" and t.stopped is None]
        assert len(reused) >= len({t.config.hash() for t in whole if t.config is not None})
        asked, before = answers(study), answers(first)
        sources = {f"small/{t.number}": t for t in trials(first)}
        for trial in reused:
            source = sources[str(trial.reused_from)]
            known = {question for question, _ in before[source.number]}
            assert known <= {question for question, _ in asked[trial.number]}
            # What was stopped there may be given the rest here, and pays for that alone.
            assert {question for question, costs in asked[trial.number] if costs}.isdisjoint(known)
            if source.stopped is None or len(asked[trial.number]) == len(known):
                assert len(asked[trial.number]) == len(known)
                assert trial.values == pytest.approx(source.values)


@pytest.mark.slow
def test_values_of_stopped_trials_are_those_of_what_they_saw(make_study: MakeStudy) -> None:
    study = make_study(trials=4, replace=POOLED)
    run_study(study)
    store = Store.open(study.storage_url, study.spec.name)
    for trial in store.trials():
        runs = store.runs(trial.trial_id, "search")
        assert trial.values is not None
        assert trial.values["accuracy"] == pytest.approx(np.mean([run.score for run in runs]))
    store.close()
