"""One agent run as a tree: rounds, calls, what overlaps, what was said."""

from dataclasses import replace

import pytest

from tuner.measure.attribution import attribute
from tuner.measure.attribution import attribute_calls
from tuner.records import ExampleRun
from tuner.records import Reading
from tuner.store import Store
from workflows.base import Checkpoint
from workflows.trace import Span


def llm(start, end, asked="Where?", said="It is\nhere.", **more):
    return Span("llm", "m", start, end, asked, said, 0.1, 30, 5, 10, **more)


def tool(start, end, **more):
    return Span("tool", "search", start, end, "Elm", "A village.", **more)


RUN = ExampleRun(
    example_id="q1",
    repeat=0,
    answer="Elm",
    score=1.0,
    error=None,
    latency_s=10.0,
    energy=Reading(40.0, "nvml-counter", "GPU-1", None, 10.0),
    tokens_in=90,
    tokens_out=15,
    tokens_cached=30,
    cost_usd=None,
    llm_calls=3,
    tool_calls=3,
    llm_s=5.0,
    tool_only_s=2.0,
    started_s=0.0,
    checkpoints=(Checkpoint(1, "Oak", 3, 4.0), Checkpoint(2, None, 6, 9.0)),
    spans=(
        llm(0.0, 2.0),
        tool(2.0, 3.5),
        tool(2.5, 4.0, speculative=True, error="too slow"),
        llm(5.0, 7.0, asked="Where?\nIt is\nhere.\nAnd?", attempt=2),
        llm(6.0, 8.0, asked="\n".join(f"line {n}" for n in range(9))),
        tool(8.5, 9.0),
    ),
    samples=((4.0, 20.0), (10.0, 40.0)),
)


@pytest.fixture
def path(keep, found, tmp_path):
    study = keep(found("react", {"max_steps": 2}, search=[]))
    store = Store.open(study.storage_url, study.spec.name)
    assert store.claim("test", None)
    store.save_run(store.trial_id(0), "search", RUN, owner="test", search_s=1.0)
    store.release("test")
    store.close()
    return tmp_path / "study.yaml"


def test_the_tree_has_rounds_calls_overlap_and_idle_time(tuner, path):
    out = tuner("trace", path, 0, "q1").out
    lines = [line.strip("│├└─ ") for line in out.splitlines()]
    assert lines[0] == "q1 (search): answer 'Elm', score 1"
    assert lines[1].startswith("react max_steps=2")
    assert "10 s (model 5.00, tools 2.50, neither 2.50), 3 model and 3 tool calls, 90 tokens in (30 cached), 15 out" in lines  # fmt: skip
    order = [
        "round 1: 4.00 s",
        "llm m  2.000 s from 0.000 s",
        "2 calls at once: 2.00 s, one after another 3.00 s",
        "tool search  1.500 s from 2.500 s",
        "[too slow]",
        "round 2: 5.00 s",
        "1.00 s without a call",
        "2 calls at once: 3.00 s, one after another 4.00 s",
        "0.50 s without a call",
        "tool search  0.500 s from 8.500 s",
        "1.00 s without a call",
    ]
    places = []
    for beginning in order:
        start = places[-1] + 1 if places else 0
        places.append(next(n for n in range(start, len(lines)) if lines[n].startswith(beginning)))
    assert "ended here it would answer 'Oak'" in out
    assert "ended here it would answer not known" in out
    assert "30 tokens in (10 cached), 5 out" in out
    assert "on a guess" in out
    assert "try 2" in out
    assert "(nvml-counter)" in out


def test_long_texts_are_cut_unless_all_is_asked_for(tuner, path):
    cut, full = tuner("trace", path, 0, "q1").out, tuner("trace", path, 0, "q1", "--full").out
    assert "… 5 lines more; --full shows them" in cut
    assert "line 2" not in cut
    assert "line 8" in cut
    assert all(f"line {n}" in full for n in range(9))


def test_only_what_is_new_of_a_prompt_is_shown(tuner, path):
    out = tuner("trace", path, 0, "q1", "--full").out
    assert out.count("› Where?") == 1
    assert "› And?" in out


@pytest.mark.parametrize("columns", [60, 200])
def test_the_tree_fits_the_terminal(tuner, path, monkeypatch, columns):
    monkeypatch.setattr("tuner.cli.output.width", lambda: columns)
    assert max(map(len, tuner("trace", path, 0, "q1").out.splitlines())) <= columns


def test_without_an_example_those_that_there_are_are_listed(tuner, path):
    ended = tuner("trace", path, 0)
    assert ended.code == 0
    assert "q1" in ended.out
    assert "trace STUDY 0 q1" in ended.err
    assert '"example": "q1"' in tuner("trace", path, 0, "--json").out


def test_joules_of_calls_add_up_to_the_query(path):
    other = replace(RUN, example_id="q2", started_s=1.5, energy=replace(RUN.energy, gross_j=0.0))
    for window in ([RUN], [RUN, replace(other, samples=((11.5, 46.0),))]):
        whole = attribute(window)
        calls = attribute_calls(window)
        assert whole is not None
        for query in whole.queries:
            joules = calls[query.example_id, query.repeat]
            kinds = [span.kind for span in RUN.spans]
            for kind, used in (("llm", query.llm_j), ("tool", query.tool_j)):
                parts = [each for each, of in zip(joules, kinds, strict=True) if of == kind]
                assert sum(parts) == pytest.approx(used)
    assert attribute_calls([replace(RUN, samples=())]) == {}


def test_calls_of_the_run_that_was_gone_on_from_have_no_joules_of_their_own(path):
    reused = replace(RUN.reused, latency_s=4.5, energy_j=20.0)
    joules = attribute_calls([replace(RUN, reused=reused, started_s=-4.5)])["q1", 0]
    assert joules[:3] == (None, None, None)
    assert None not in joules[3:]


def test_what_a_model_wrote_does_nothing_to_a_terminal(tuner, keep, found, monkeypatch):
    hostile = "\x1b[2J\x1b]0;owned\x07 \x9b31m [red]x[/red] \u202egnp.exe"
    monkeypatch.setattr(
        "tuner.store.rows.unpack_trace",
        lambda blob: ((Span("llm", hostile, 0.0, 1.0, hostile, hostile, error=hostile),), (), ()),
    )
    study = keep(found("direct", {}, search=[(1, 1, None)] * 4))
    ended = tuner("trace", study.path, 0, "q5", "--full")
    assert "[red]x[/red]" in ended.out  # as it stands
    for control in "\x1b\x07\x9b\u202e":
        assert control not in ended.out + ended.err
