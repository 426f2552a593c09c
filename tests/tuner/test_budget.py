"""What counts against a budget, and whether a study stays within it."""

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tuner.budget import Ledger
from tuner.budget import gpus_of
from tuner.budget import spent
from tuner.events import Event
from tuner.events import StudyEnded
from tuner.records import ExampleRun
from tuner.records import Reused
from tuner.spec import LoadedStudy
from tuner.spec import load_study
from tuner.store import EDGE
from tuner.store import Store
from tuner.study import run_study
from workflows.config import AgentConfig
from workflows.table import workflow_kind

WH = 3600.0
TOKENS = 35  # of every run that `keep` makes

Bounded = Callable[..., tuple[LoadedStudy, Store]]


def config(workflow: str, **params: Any) -> AgentConfig:
    full = workflow_kind(workflow).params.model_validate(params).model_dump()
    return AgentConfig(workflow=workflow, model="m", params=full)


def steps(count: int) -> AgentConfig:
    return config("react", max_steps=count)


@pytest.fixture
def bounded(keep: Any) -> Iterator[Bounded]:
    """Writes a study whose trials found this, and which has these limits; gives it with its store, which is owned by `me`."""
    opened: list[Store] = []

    def bounded(limits: str, *found: Any, **more: Any) -> tuple[LoadedStudy, Store]:
        path = keep(*found, **more).path
        text = path.read_text()
        assert "budget: {trials: 9}" in text
        path.write_text(text.replace("{trials: 9}", f"{{trials: 9, {limits}}}"))
        study = load_study(path)
        opened.append(Store.open(study.storage_url, study.spec.name))
        assert opened[-1].claim("me", None)
        return study, opened[-1]

    yield bounded
    for store in opened:
        store.close()


def ask(store: Store, trial: int, run: ExampleRun, name: str, split: str = "search") -> None:
    """Keep one more run of a trial."""
    run = replace(run, example_id=name)
    store.save_run(store.trial_id(trial), split, run, owner="me", search_s=1.0)


def test_whatever_ran_counts_and_the_holdout_pass_is_told_apart(
    bounded: Bounded, found: Any
) -> None:
    _, store = bounded(
        "energy_wh: 9",
        found("direct", {}, search=[(1, 2, WH)] * 4, holdout=[(1, 2, WH)] * 2),
        found("react", {"max_steps": 2}, search=[(0, 2, WH)], failure="the server is gone"),
        found("react", {"max_steps": 3}, search=[(0, 2, WH)] * 2, stopped="beaten"),
    )
    (run, *_) = store.runs(store.trial_id(0), "search")
    ask(store, 0, run, "warm-up", EDGE)
    energy, tokens = spent(store)["energy_wh"], spent(store)["tokens"]
    assert (energy.total, energy.holdout, energy.unknown) == (10.0, 2.0, 0)
    assert (tokens.total, tokens.holdout, tokens.unknown) == (10 * TOKENS, 2 * TOKENS, 0)


def test_what_an_earlier_run_had_paid_for_does_not(bounded: Bounded, found: Any) -> None:
    _, store = bounded("energy_wh: 9", found("direct", {}, search=[(1, 2, WH)] * 4))
    (run, *_) = store.runs(store.trial_id(0), "search")
    ask(store, 0, run.taken_over(), "derived")
    ask(store, 0, replace(run, reused=Reused(0.5, WH / 4, 20)), "went on")
    assert spent(store)["energy_wh"].total == 4.75
    assert spent(store)["tokens"].total == 4 * TOKENS + 15


def test_a_run_of_which_nothing_is_known_counts_as_the_dearest_of_its_trial(
    bounded: Bounded, found: Any
) -> None:
    _, store = bounded(
        "energy_wh: 9",
        found("direct", {}, search=[(1, 2, WH), (1, 2, 3 * WH), (1, 2, None)]),
        found("react", {"max_steps": 2}, search=[(1, 2, 8 * WH)]),
        found("react", {"max_steps": 3}, search=[(1, 2, None)]),
    )
    energy = spent(store)["energy_wh"]
    assert energy.total == (1 + 3 + 3) + 8 + 8
    assert energy.unknown == 2


def test_where_nothing_at_all_is_known_the_search_ends(bounded: Bounded, found: Any) -> None:
    study, store = bounded("cost_usd: 9", found("direct", {}, search=[(1, 2, WH)] * 2))
    cost = spent(store)["cost_usd"]
    assert (cost.total, cost.holdout, cost.unknown) == (None, None, 2)
    assert Ledger(study, store).end_reason() == "nobody knows how much of 9 $ 2 runs took"


def test_gpu_hours_are_those_of_all_gpus_while_questions_are_asked(
    bounded: Bounded, found: Any
) -> None:
    served = {"source": "nvml-counter", "scope": "GPU-1, GPU-2", "gpus": 2}
    models = {"m": {"settings": None, "serve": None, "cache": "shared", "energy": served}}
    study, store = bounded(
        "gpu_hours: 2",
        found("direct", {}, search=[(1, 900, WH)] * 4),
        provenance={"models": models},
    )
    assert spent(store)["gpu_hours"].total == 2.0
    assert Ledger(study, store, front=list).end_reason() == "2 of 2 GPU-hours are spent"


@pytest.mark.parametrize(
    ("energies", "gpus"),
    [
        ([], None),
        ([{"scope": "a", "gpus": 2}], 2),
        ([{"scope": "a", "gpus": 2}, {"scope": "b", "gpus": 1}], 3),
        ([{"scope": "a", "gpus": 2}, {"scope": "a", "gpus": 2}], 2),  # variants of one model
        ([{"scope": "a", "gpus": 2}, {"scope": "b", "gpus": None}], None),
    ],
)
def test_gpus_are_counted_once(energies: list[dict[str, Any]], gpus: int | None) -> None:
    assert gpus_of(energies) == gpus


def test_before_anything_ran_nothing_is_refused(bounded: Bounded) -> None:
    study, store = bounded("energy_wh: 1, tokens: 1, cost_usd: 1, wall_clock: 1s, plateau: 1")
    ledger = Ledger(study, store)
    assert ledger.end_reason() is None
    assert ledger.affords(steps(1), 4) is None
    assert ledger.left() == 1
    assert ledger.allows([(steps(1), 4)])


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        (7.9, "8 of 7.9 Wh are spent, and the holdout pass takes about 2"),
        (8.0, "8 of 8 Wh are spent, and the holdout pass takes about 2"),
        (9.9, "8 of 9.9 Wh are spent, and the holdout pass takes about 2"),
        (10.0, None),
    ],
)
def test_the_search_ends_where_the_holdout_pass_of_its_front_would_not_fit(
    bounded: Bounded, found: Any, limit: float, reason: str | None
) -> None:
    study, store = bounded(
        f"energy_wh: {limit}",
        found("direct", {}, search=[(1, 1, WH)] * 4, holdout=[(1, 1, WH)] * 2),  # 2 are to come
        found("react", {"max_steps": 2}, search=[(0, 2, 0.5 * WH)] * 4, feasible=False),
    )
    assert Ledger(study, store).end_reason() == reason


def test_whoever_knows_the_front_better_says_what_will_be_confirmed(
    bounded: Bounded, found: Any
) -> None:
    study, store = bounded("energy_wh: 9", found("direct", {}, search=[(1, 1, WH)] * 4))
    ledger = Ledger(study, store, front=lambda: [config("direct"), steps(1)])
    assert ledger.end_reason() == "4 of 9 Wh are spent, and the holdout pass takes about 8"


def test_questions_are_estimated_by_the_config_then_its_workflow_then_all(
    bounded: Bounded, found: Any
) -> None:
    study, store = bounded(
        "tokens: 99999, energy_wh: 30",
        found("direct", {}, search=[(0, 1, 2 * WH)] * 4, stopped="beaten"),
        found("react", {"max_steps": 2}, search=[(0, 2, WH)] * 4, stopped="beaten"),
        found("react", {"max_steps": 4}, search=[(0, 2, 3 * WH)] * 4, stopped="beaten"),
    )
    ledger = Ledger(study, store)
    # 6 Wh are left: a question of direct took 2, of react 2 ± 1, of any 2 ± 0.82
    assert ledger.affords(config("direct"), 3) is None
    assert ledger.affords(config("direct"), 4) == (
        "24 of 30 Wh are spent, and 4 questions of direct take about 8"
    )
    assert ledger.affords(steps(4), 2) is None
    assert ledger.affords(steps(6), 2) is None
    assert ledger.affords(steps(6), 3) == (
        "24 of 30 Wh are spent, and 3 questions of react take about 9"
    )
    assert ledger.affords(config("reflexion"), 2) is None
    assert ledger.affords(config("reflexion"), 3) == (
        "24 of 30 Wh are spent, and 3 questions of reflexion take about 8.45"
    )
    assert ledger.left() == pytest.approx(0.2)
    assert ledger.allows([(steps(6), 1), (steps(4), 1)])
    assert not ledger.allows([(steps(6), 2), (steps(4), 1)])


def test_the_holdout_pass_may_take_what_was_kept_for_it(bounded: Bounded, found: Any) -> None:
    study, store = bounded(
        "energy_wh: 8, wall_clock: 4s", found("direct", {}, search=[(1, 1, WH)] * 4)
    )
    ledger = Ledger(study, store)
    assert ledger.affords(config("direct"), 4, split="holdout") is None
    refused = ledger.affords(config("direct"), 5, split="holdout")
    assert refused == "4 of 8 Wh are spent, and 5 questions of direct take about 5"
    assert ledger.affords(config("direct"), 1) is not None


def test_the_clock_goes_on_as_it_went(bounded: Bounded, found: Any) -> None:
    # 8 questions of 1 and 3 s, kept as 1 s each: two were under way at once.
    study, store = bounded(
        "wall_clock: 20s",
        found("direct", {}, search=[(1, 1, 1)] * 4),
        found("react", {"max_steps": 2}, search=[(1, 3, 1)] * 4),
    )
    ledger = Ledger(study, store)
    assert ledger.end_reason() is None
    assert ledger.affords(steps(2), 8) is None
    assert ledger.affords(steps(2), 9) == (
        "8 of 20 s are spent, and 9 questions of react take about 13.5"
    )
    assert ledger.affords(config("direct"), 24) is None
    assert ledger.left() == pytest.approx(0.6)
    assert ledger.allows([(steps(2), 4), (config("direct"), 12)])
    assert not ledger.allows([(steps(2), 4), (config("direct"), 13)])


def test_extra_questions_are_part_of_what_a_question_takes(bounded: Bounded, found: Any) -> None:
    study, store = bounded("energy_wh: 16", found("direct", {}, search=[(0, 1, WH)] * 4))
    (run, *_) = store.runs(store.trial_id(0), "search")
    for number in range(4):
        ask(store, 0, run, f"warm-up {number}", EDGE)
    ledger = Ledger(study, store, front=list)
    assert ledger.affords(config("direct"), 4) is None
    assert ledger.affords(config("direct"), 5) == (
        "8 of 16 Wh are spent, and 5 questions of direct take about 10"
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_limit_is_passed_by_one_misjudged_block_at_most(
    bounded: Bounded, found: Any, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    study, store = bounded("energy_wh: 60", found("direct", {}, search=[(0, 1, WH)] * 4))
    (run, *_) = store.runs(store.trial_id(0), "search")
    ledger = Ledger(study, store, front=list)
    took = [1.0] * 4
    misjudged = 0.0
    while ledger.affords(config("direct"), 3) is None:
        block = [float(each) for each in rng.lognormal(0.0, 1.0, 3)]
        misjudged = sum(block) - 3 * float(np.mean(took))
        for wh in block:
            energy = replace(run.energy, gross_j=wh * WH)
            ask(store, 0, replace(run, energy=energy), f"more {len(took)}")
            took.append(wh)
    assert len(took) > 12
    assert spent(store)["energy_wh"].total == pytest.approx(sum(took))
    assert sum(took) <= 60 + max(0.0, misjudged)
    assert sum(took) + 3 * float(np.mean(took)) > 60


def test_a_front_that_no_longer_grows_ends_the_search(bounded: Bounded, found: Any) -> None:
    best, worse = [(1, 1, 1), (1, 2, 2), (0, 2, 2), (1, 3, 3)], [(0, 8, 8)] * 4
    trials = [
        found("direct", {}, search=worse),
        found("react", {"max_steps": 1}, search=best),
        *(found("react", {"max_steps": n}, search=worse) for n in (2, 3, 4)),
    ]
    study, store = bounded("plateau: 3", *trials)
    assert Ledger(study, store).end_reason() == (
        "the last 3 trials added 0 % [0, 0] to the front's hypervolume, which may be luck"
    )
    study.path.write_text(study.path.read_text().replace("plateau: 3", "plateau: 6"))
    assert Ledger(load_study(study.path), store).end_reason() is None


def test_a_front_that_has_just_grown_does_not(bounded: Bounded, found: Any) -> None:
    worse, better = [(0, 8, 8)] * 4, [(1, 1, 1)] * 4
    study, store = bounded(
        "plateau: 2",
        found("direct", {}, search=worse),
        found("react", {"max_steps": 1}, search=[(0, 7, 7)] * 4),
        found("react", {"max_steps": 2}, search=[(0, 9, 9)] * 4),
        found("react", {"max_steps": 3}, search=better),
    )
    assert Ledger(study, store).end_reason() is None


@pytest.mark.slow
def test_a_study_stays_within_its_tokens_and_confirms_its_front(
    make_study: Callable[..., LoadedStudy],
) -> None:
    study = make_study(replace=("{trials: 6}", "{trials: 50, tokens: 3000}"))
    ended: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, StudyEnded):
            ended.append(event.reason)

    run_study(study, report=listen)
    with closing(Store.open(study.storage_url, study.spec.name)) as store:
        tokens = spent(store)["tokens"]
    assert tokens.total is not None
    assert tokens.holdout is not None
    assert 1500 < tokens.total <= 3000
    assert tokens.holdout > 0
    (reason,) = ended
    assert " of 3,000 tokens are spent, " in reason
    assert "the holdout pass takes about " in reason
