import dataclasses
import math

import numpy as np
import optuna
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tuner.errors import StoreError
from tuner.records import ExampleRun
from tuner.records import PassRecord
from tuner.records import Reading
from tuner.store import Store
from tuner.store import schema
from tuner.store import tables
from workflows.base import Checkpoint
from workflows.config import AgentConfig
from workflows.trace import Span

characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
text = st.text(characters, max_size=20)
name = st.text(characters, min_size=1, max_size=20)
seconds = st.floats(0, 1e6, allow_nan=False)
count = st.integers(0, 2**31 - 1)
SPANS = st.builds(
    Span,
    kind=st.sampled_from(["llm", "tool"]),
    name=name,
    start_s=seconds,
    end_s=seconds,
    input=text,
    output=text,
    ttft_s=st.none() | seconds,
    tokens_in=st.none() | count,
    tokens_out=st.none() | count,
    tokens_cached=st.none() | count,
    cost_usd=st.none() | seconds,
    attempt=st.integers(1, 11),
    error=st.none() | text,
)
READINGS = st.builds(
    Reading,
    st.none() | seconds,
    st.sampled_from(["rapl", "none"]),
    text,
    st.none() | text,
    seconds,
    st.none() | seconds,
    st.none() | seconds,
    st.none() | seconds,
    st.none() | text,
)
RUNS = st.builds(
    ExampleRun,
    example_id=name,
    repeat=st.integers(0, 5),
    answer=text,
    score=st.floats(0, 1),
    error=st.none() | text,
    latency_s=seconds,
    energy=READINGS,
    tokens_in=st.none() | count,
    tokens_out=st.none() | count,
    tokens_cached=st.none() | count,
    cost_usd=st.none() | seconds,
    llm_calls=count,
    tool_calls=count,
    llm_s=seconds,
    tool_only_s=seconds,
    started_s=seconds,
    checkpoints=st.lists(
        st.builds(Checkpoint, count, st.none() | text, count, seconds), max_size=3
    ).map(tuple),
    spans=st.lists(SPANS, max_size=3).map(tuple),
    window=st.integers(0, 3),
    samples=st.lists(st.tuples(seconds, seconds), max_size=3).map(tuple),
)
CONFIG = AgentConfig(workflow="direct", model="m", params={"few_shot": 2, "temperature": 0.5})


def plain_run(example_id="e1", repeat=0, **changes):
    run = ExampleRun(
        example_id,
        repeat,
        "Elm",
        1.0,
        None,
        2.0,
        Reading(5.0, "rapl", "package"),
        10,
        3,
        0,
        None,
        1,
        0,
        1.0,
        0.0,
        0.0,
        (),
        (),
    )
    return dataclasses.replace(run, **changes)


def counted(engine, table):
    with engine.connect() as connection:
        return connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar()


def new_trial(store, optuna_study, config=CONFIG):
    trial = optuna_study.ask()
    trial_id = store.trial_id(trial.number)
    store.save_config(trial_id, config)
    return trial, trial_id


@pytest.mark.slow
@given(run=RUNS)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_an_example_run_comes_back_exactly(store, optuna_study, run):
    _, trial_id = new_trial(store, optuna_study)
    store.save_run(trial_id, "search", run, owner="me", search_s=0.0)
    assert store.runs(trial_id, "search") == (run,)
    assert store.runs(trial_id, "holdout") == ()
    names = ("score", "latency_s", "energy_j", "tokens_in", "cost_usd")
    row = [getattr(run, name) for name in names]
    expected = np.array([row], dtype=float)  # None is NaN here
    np.testing.assert_array_equal(store.fields("search", names)[trial_id], expected)


def test_what_no_database_keeps_is_kept_by_another_sign_and_whole_in_the_trace(store, optuna_study):
    _, trial_id = new_trial(store, optuna_study)
    span = Span("llm", "m", 0.0, 1.0, "a\0b", "half \ud83d of a pair")
    run = plain_run(answer="a\0b", error="half \ud83d of a pair", spans=(span,))
    store.save_run(trial_id, "search", run, owner="me", search_s=0.0)
    (found,) = store.runs(trial_id, "search")
    assert (found.answer, found.error) == ("a\u2400b", "half \\ud83d of a pair")
    assert found.spans == (span,)
    store.finish(trial_id, failure="said \0")
    assert store.trials()[0].failure == "said \u2400"


def test_sittings_are_kept_and_numbered(optuna_study, store):
    trial_id = optuna_study.ask()._trial_id
    assert store.next_window(trial_id, "search") == 0
    store.save_run(trial_id, "search", plain_run(), owner="me", search_s=0.0)
    assert store.next_window(trial_id, "search") == 1
    assert store.next_window(trial_id, "holdout") == 0
    sitting = PassRecord(
        0,
        Reading(5.0, "rapl", "package", seconds=2.0, idle_j=1.0),
        0.5,
        servers={"m": {"engine": "vllm", "kv_bytes_max": None}},
        isolation={"m": "cleared"},
        load={"concurrency": 1},
    )
    store.save_pass(trial_id, "search", sitting)
    assert store.passes(trial_id, "search") == (sitting,)
    assert store.passes(trial_id, "holdout") == ()


def test_an_example_is_kept_once_and_its_time_counted_once(store, optuna_study):
    _, trial_id = new_trial(store, optuna_study)
    store.save_run(trial_id, "search", plain_run(), owner="me", search_s=2.0)
    with pytest.raises(sa.exc.IntegrityError):
        store.save_run(trial_id, "search", plain_run(score=0.0), owner="me", search_s=5.0)
    assert store.row().search_s == 2.0
    assert [run.score for run in store.runs(trial_id, "search")] == [1.0]
    store.save_run(trial_id, "search", plain_run(repeat=1), owner="me", search_s=1.0)
    store.save_run(trial_id, "holdout", plain_run(), owner="me", search_s=0.0)
    assert store.row().search_s == 3.0
    assert store.finished(trial_id, "search") == {("e1", 0), ("e1", 1)}
    assert store.finished(trial_id, "holdout") == {("e1", 0)}


def test_runs_come_in_the_order_in_which_they_finished(store, optuna_study):
    _, trial_id = new_trial(store, optuna_study)
    latencies_s = {"e3": 3.0, "e1": 1.0, "e2": 2.0}
    for example, latency_s in latencies_s.items():
        run = plain_run(example, latency_s=latency_s)
        store.save_run(trial_id, "search", run, owner="me", search_s=0.0)
    assert [run.example_id for run in store.runs(trial_id, "search")] == ["e3", "e1", "e2"]
    assert store.fields("search", ["latency_s"])[trial_id].tolist() == [[1.0], [2.0], [3.0]]
    assert store.asked("search") == {trial_id: [("e1", 0), ("e2", 0), ("e3", 0)]}
    assert store.asked("holdout") == {}


def test_failed_questions_are_counted_by_trial(store, optuna_study):
    _, some = new_trial(store, optuna_study)
    _, none = new_trial(store, optuna_study)
    for example, error in (("e1", "no route"), ("e2", None), ("e3", "too late")):
        run = plain_run(example, error=error)
        store.save_run(some, "search", run, owner="me", search_s=0.0)
        store.save_run(none, "search", plain_run(example), owner="me", search_s=0.0)
    assert store.failed_counts("search") == {some: 2}
    assert store.failed_counts("holdout") == {}


def test_only_one_of_two_claims_succeeds(url, store):
    store.release("me")
    other = Store.create(url, "s")
    assert store.claim("me", None)
    assert not other.claim("you", None)
    assert not other.claim("you", "somebody else")
    assert other.row().owner == "me"
    assert other.claim("you", "me")
    assert not store.claim("me", "me")
    store.release("me")
    assert store.row().owner == "you"
    other.release("you")
    assert store.row().owner is None
    other.close()


def test_who_lost_the_study_keeps_nothing_more(url, store, optuna_study):
    _, trial_id = new_trial(store, optuna_study)
    assert store.claim("you", "me")
    with pytest.raises(StoreError, match="taken over by another run"):
        store.save_run(trial_id, "search", plain_run(), owner="me", search_s=1.0)
    assert store.runs(trial_id, "search") == ()
    assert store.row().search_s == 0.0


def test_trials_are_told_with_state_config_and_values(store, optuna_study):
    done, done_id = new_trial(store, optuna_study)
    store.save_run(done_id, "search", plain_run(), owner="me", search_s=1.0)
    store.finish(done_id, values={"accuracy": 0.5, "energy_wh": 2.0}, feasible=False)
    optuna_study.tell(done, [0.5, 2.0])
    failed, failed_id = new_trial(store, optuna_study)
    store.finish(failed_id, failure="it fell")
    optuna_study.tell(failed, state=optuna.trial.TrialState.FAIL)
    replay, replay_id = new_trial(store, optuna_study)
    store.finish(replay_id, values={"accuracy": 0.5, "energy_wh": 2.0}, replay_of=0)
    optuna_study.tell(replay, [0.5, 2.0])
    optuna_study.ask()
    one, two, three, four = store.trials()
    assert (one.state, one.config, one.feasible, one.replay_of) == ("complete", CONFIG, False, None)
    assert one.values == {"accuracy": 0.5, "energy_wh": 2.0}
    assert one.sources == {"energy": "rapl"}
    assert (two.state, two.failure, two.values, two.sources) == ("failed", "it fell", None, {})
    assert (three.state, three.replay_of) == ("complete", 0)
    assert (four.state, four.config, four.number) == ("running", None, 3)


def test_knobs_are_told_where_they_were_given_and_forgotten_where_they_were_drawn(
    url, store, optuna_study
):
    knobs = {"few_shot": 2, "temperature": 0.5, "workflow": "direct", "thoughts": True}
    optuna_study.enqueue_trial(knobs)
    enqueued, drawn = optuna_study.ask(), optuna_study.ask()
    for trial in (enqueued, drawn):
        trial.suggest_int("few_shot", 0, 4)
    assert store.enqueued_knobs(store.trial_id(0)) == knobs
    assert store.enqueued_knobs(store.trial_id(1)) is None
    store.forget_knobs(store.trial_id(1))
    storage = schema.open_optuna_storage(url)
    fresh = optuna.load_study(study_name="s", storage=storage)
    assert [trial.params for trial in fresh.trials] == [{"few_shot": 2}, {}]
    storage.engine.dispose()
    other = Store.open(url, "s")
    with pytest.raises(StoreError, match="taken over"):
        other.forget_knobs(store.trial_id(0))
    other.close()


def test_a_config_is_kept_as_it_was_first(store, optuna_study):
    _, trial_id = new_trial(store, optuna_study)
    store.save_config(trial_id, AgentConfig(workflow="react", model="m"))
    assert store.trials()[0].config == CONFIG


def test_what_changes_is_refused_by_name_and_what_is_new_is_added(store):
    store.register({"server": "9"}, spec={"name": "s", "budget": 2}, provenance={"python": "3"})
    store.register({"space": "1"}, spec={"name": "s"}, provenance={"machine": "m"})
    row = store.row()
    assert row.fingerprint == {"space": "1", "server": "9"}
    assert row.provenance == {"python": "3", "machine": "m"}
    with pytest.raises(StoreError, match="with another space and another server;") as caught:
        store.register({"space": "2", "server": "8"}, spec={}, provenance={})
    assert "new name" in caught.value.hint
    assert store.row() == row


def test_models_are_added_to_the_provenance_as_their_servers_start(store):
    store.register({}, spec={}, provenance={"python": "3.11", "models": {"a": {"serve": 1}}})
    store.register({}, spec={}, provenance={"models": {"a": {"serve": 2}, "b": {"serve": 3}}})
    store.register({}, spec={}, provenance={"python": "3.12"})
    assert store.row().provenance == {
        "python": "3.12",
        "models": {"a": {"serve": 2}, "b": {"serve": 3}},
    }


def test_deleting_the_study_in_optuna_deletes_our_rows(url, engine, store, optuna_study):
    _, trial_id = new_trial(store, optuna_study)
    store.save_run(trial_id, "search", plain_run(), owner="me", search_s=1.0)
    store.finish(trial_id, values={"accuracy": 1.0})
    store.close()
    optuna.delete_study(study_name="s", storage=optuna_study._storage)
    names = set(tables.metadata.tables)
    assert {table: counted(engine, table) for table in names} == dict.fromkeys(names, 0)
    with pytest.raises(StoreError, match="holds no study named 's'"):
        Store.open(url, "s")


def test_rows_that_a_bare_connection_left_behind_do_not_pass_to_the_next_study(
    url, store, optuna_study
):
    _, trial_id = new_trial(store, optuna_study)
    store.save_run(trial_id, "search", plain_run(), owner="me", search_s=1.0)
    store.close()
    bare = optuna.storages.RDBStorage(url)
    optuna.delete_study(study_name="s", storage=bare)
    again = optuna.create_study(study_name="s", storage=bare, directions=["maximize", "minimize"])
    store = Store.create(url, "s")
    store.register({"space": "2"}, spec={}, provenance={})
    again.ask()
    assert store.trials()[0].config is None
    assert store.fields("search", ["score"]) == {}
    assert store.row().search_s == 0.0
    store.close()
    bare.engine.dispose()


def test_studies_in_one_database_do_not_see_each_other(url, store, optuna_study):
    _, mine = new_trial(store, optuna_study)
    store.save_run(mine, "search", plain_run(), owner="me", search_s=1.0)
    storage = optuna_study._storage
    optuna.create_study(study_name="t", storage=storage, directions=["maximize", "minimize"])
    other = Store.create(url, "t")
    other.register({"space": "7"}, spec={}, provenance={})
    assert other.trials() == []
    assert other.fields("search", ["score"]) == {}
    assert other.row().owner is None
    assert store.row().fingerprint == {"space": "1"}
    other.close()


def test_numbers_come_back_to_the_last_bit(store, optuna_study):
    _, trial_id = new_trial(store, optuna_study)
    values = {"accuracy": 1 / 3, "energy_wh": math.ulp(1.0)}
    store.finish(trial_id, values=values)
    assert store.trials()[0].values == values
