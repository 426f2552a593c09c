"""What runs took, summed up by the database, against the same sums made here."""

from dataclasses import replace

import optuna
import pytest
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tuner.records import ExampleRun
from tuner.records import Reading
from tuner.records import Reused
from tuner.store import Store
from workflows.config import AgentConfig

RUN = ExampleRun(
    example_id="e",
    repeat=0,
    answer="Elm",
    score=1.0,
    error=None,
    latency_s=2.0,
    energy=Reading(5.0, "rapl", "package", seconds=1.5),
    tokens_in=10,
    tokens_out=3,
    tokens_cached=0,
    cost_usd=0.01,
    llm_calls=1,
    tool_calls=0,
    llm_s=1.0,
    tool_only_s=0.0,
    started_s=0.0,
    checkpoints=(),
    spans=(),
)


def keep(store: Store, optuna_study: optuna.Study, runs: list[ExampleRun], split: str) -> int:
    """A trial that has these runs."""
    trial_id = store.trial_id(optuna_study.ask().number)
    store.save_config(trial_id, AgentConfig(workflow="react", model="m"))
    for number, run in enumerate(runs):
        store.save_run(
            trial_id, split, replace(run, example_id=str(number)), owner="me", search_s=0.0
        )
    return trial_id


amount = st.none() | st.integers(0, 1000)


@st.composite
def runs(draw: st.DrawFn) -> ExampleRun:
    """A run of which a part, all or nothing was paid for by an earlier one."""
    joules, usd = draw(amount), draw(amount)
    tokens_in, tokens_out = draw(amount), draw(amount)
    latency_s = float(draw(st.integers(1, 50)))
    share = draw(st.sampled_from([0.0, 0.5, 1.0]))
    tokens = (tokens_in or 0) + (tokens_out or 0)
    return replace(
        RUN,
        latency_s=latency_s,
        energy=Reading(joules, "rapl", "package", seconds=latency_s / 2),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        cost_usd=usd,
        reused=Reused(
            share * latency_s, share * (joules or 0), int(share * tokens), share * (usd or 0)
        ),
    )


def tokens_of(run: ExampleRun) -> int | None:
    return (
        None if run.tokens_in is None or run.tokens_out is None else run.tokens_in + run.tokens_out
    )


@given(found=st.lists(runs(), min_size=1, max_size=6))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_sums_are_those_of_the_runs(
    store: Store, optuna_study: optuna.Study, found: list[ExampleRun]
) -> None:
    trial_id = keep(store, optuna_study, found, "search")
    (row,) = (row for row in store.spent() if row.trial_id == trial_id)
    assert (row.split, row.workflow, row.runs) == ("search", "react", len(found))
    assert row.config_hash == AgentConfig(workflow="react", model="m").hash()
    for name, pairs in {
        "joules": [(run, run.energy_j, run.reused.energy_j) for run in found],
        "usd": [(run, run.cost_usd, run.reused.cost_usd) for run in found],
        "tokens": [(run, tokens_of(run), run.reused.tokens) for run in found],
        "latency_s": [(run, run.latency_s, run.reused.latency_s) for run in found],
        "seconds": [
            (run, run.latency_s / 2, run.reused.latency_s / 2)  # as long a part of its stretch
            for run in found
        ],
    }.items():
        new = [run.reused.latency_s < run.latency_s for run in found]
        known = [value for _, value, _ in pairs if value is not None]
        assert row.amounts[name].total == pytest.approx(sum(known))
        assert row.amounts[name].known == len(known)
        assert row.amounts[name].dearest == max(known, default=0)
        assert row.amounts[name].unknown == sum(
            is_new and value is None for is_new, (_, value, _) in zip(new, pairs, strict=True)
        )
        assert row.amounts[name].spent == pytest.approx(
            sum(
                value - reused
                for is_new, (_, value, reused) in zip(new, pairs, strict=True)
                if is_new and value is not None
            )
        )


def test_splits_are_apart_and_other_studies_left_out(
    store: Store, optuna_study: optuna.Study, url: str
) -> None:
    trial_id = keep(store, optuna_study, [RUN, RUN], "search")
    for split in ("holdout", "edge"):
        store.save_run(trial_id, split, RUN, owner="me", search_s=0.0)
    found = [(row.split, row.runs) for row in store.spent() if row.trial_id == trial_id]
    assert found == [("edge", 1), ("holdout", 1), ("search", 2)]
    other = optuna.create_study(
        study_name="other", storage=optuna_study._storage, directions=["maximize", "minimize"]
    )
    second = Store.create(url, "other")
    assert second.spent() == []
    assert other.trials == []
    second.close()


def test_where_a_meter_failed_the_latency_stands_for_the_stretch(
    store: Store, optuna_study: optuna.Study
) -> None:
    failed = replace(RUN, energy=Reading(None, "rapl", "package", "the counter was lost"))
    trial_id = keep(store, optuna_study, [RUN, failed], "search")
    (row,) = (row for row in store.spent() if row.trial_id == trial_id)
    assert row.amounts["seconds"].spent == 1.5 + 2.0


@given(found=st.lists(runs(), min_size=2, max_size=6), data=st.data())
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_has_changed_since_comes_whole(
    store: Store, optuna_study: optuna.Study, found: list[ExampleRun], data: st.DataObject
) -> None:
    split = data.draw(st.integers(1, len(found) - 1))
    trial_id = keep(store, optuna_study, found[:split], "search")
    (before,) = (row for row in store.spent() if row.trial_id == trial_id)
    assert store.spent(after=before.last) == []
    for number, run in enumerate(found[split:]):
        named = replace(run, example_id=f"later {number}")
        store.save_run(trial_id, "search", named, owner="me", search_s=0.0)
    (since,) = store.spent(after=before.last)
    (whole,) = (row for row in store.spent() if row.trial_id == trial_id)
    assert since == whole
    assert (whole.runs, whole.last > before.last) == (len(found), True)
