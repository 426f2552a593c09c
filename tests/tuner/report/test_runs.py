"""What a page carries of runs: all within its bytes, what matters in full, and joules call by call."""

import base64
import json
import random
import zlib
from dataclasses import replace

import pytest

from tuner.measure.attribution import attribute
from tuner.measure.attribution import stages
from tuner.records import ExampleRun
from tuner.records import Reading
from tuner.report.runs import TrialRuns
from tuner.report.runs import make_blocks
from workflows.base import Checkpoint
from workflows.trace import Span

WORDS = [f"word{number}" for number in range(4000)]


def said(seed: int, count: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def run_of(example: int, seed: int = 0, *, steps: int = 3, began_s: float = 0.0) -> ExampleRun:
    """A run of a model call and a tool call in each step, which overlap a little, at 10 W."""
    few_shot, spans, prompt = said(1, 600), [], ""
    for step in range(steps):
        prompt = f"{few_shot}\nQuestion {example} 🐎\n{said(seed + example, 30 * (step + 1))}"
        spans.append(
            Span(
                "llm",
                "m",
                2.0 * step,
                2.0 * step + 1.2,
                prompt,
                said(step + seed, 20),
                0.2,
                900,
                20,
                600,
            )
        )
        spans.append(
            Span(
                "tool",
                "search",
                2.0 * step + 1,
                2.0 * step + 1.8,
                said(step, 2),
                said(seed + step, 60),
            )
        )
    latency_s = 2.0 * steps
    return ExampleRun(
        example_id=f"q{example}",
        repeat=0,
        answer="Elm",
        score=1.0,
        error=None,
        latency_s=latency_s,
        energy=Reading(10 * latency_s, "nvml-counter", "GPU 0", None, latency_s),
        tokens_in=900 * steps,
        tokens_out=20 * steps,
        tokens_cached=600 * steps,
        cost_usd=None,
        llm_calls=steps,
        tool_calls=steps,
        llm_s=1.2 * steps,
        tool_only_s=0.6 * steps,
        started_s=began_s,
        checkpoints=(Checkpoint(1, "Elm", 2, 2.0),),
        spans=tuple(spans),
        samples=((began_s + latency_s, 10 * (began_s + latency_s)),),
    )


def trial_of(seed: int, questions: int = 24) -> TrialRuns:
    runs = [run_of(place, seed, began_s=6.0 * place) for place in range(questions)]
    return TrialRuns({"search": runs, "holdout": ()}, {"search": (), "holdout": ()})


def opened(block):
    content = json.loads(zlib.decompress(base64.b64decode(block.base64)))
    texts = []
    for place, units, rest in content["texts"]:
        # As JavaScript slices: by UTF-16 units.
        before = texts[place].encode("utf-16-le")[: 2 * units].decode("utf-16-le") if units else ""
        texts.append(before + rest)
    return content, texts


def test_texts_come_back_as_they_were_and_common_beginnings_are_kept_once():
    (block,) = make_blocks(lambda number: trial_of(number), first=[5], others=[], most_bytes=10**7)
    content, texts = opened(block)
    assert (block.trial, block.detail, block.told) == (5, "texts", 24)
    for row, run in zip(content["search"], trial_of(5).runs["search"], strict=True):
        for kept, span in zip(row["spans"], run.spans, strict=True):
            assert [texts[place] for place in kept["said"]] == [span.input, span.output]
    whole = sum(
        len(span.input) + len(span.output)
        for run in trial_of(5).runs["search"]
        for span in run.spans
    )
    assert sum(len(rest) for _, _, rest in content["texts"]) < whole / 4


@pytest.mark.parametrize("most_bytes", [0, 20_000, 150_000, 600_000])
def test_blocks_never_take_more_bytes_than_they_may(most_bytes):
    blocks = make_blocks(
        lambda number: trial_of(number, 12),
        first=[3, 1],
        others=range(4, 24),
        most_bytes=most_bytes,
    )
    assert sum(len(block.base64) for block in blocks) <= most_bytes
    assert len({block.trial for block in blocks}) == len(blocks)


def size(blocks):
    return sum(len(block.base64) for block in blocks)


@pytest.mark.slow
def test_what_matters_has_texts_and_others_timelines_or_rows():
    def made(most_bytes):
        blocks = make_blocks(
            lambda number: trial_of(number, 12),
            first=[3, 1],
            others=range(4, 24),
            most_bytes=most_bytes,
        )
        return blocks, {block.trial: block.detail for block in blocks}

    whole, details = made(10**7)
    assert set(details.values()) == {"texts"}
    less, details = made(int(0.16 * size(whole)))
    assert [details[number] for number in (3, 1)] == ["texts", "texts"]
    assert {details[number] for number in range(4, 24)} == {"calls", "rows"}
    # An equal part each: the first does not take what the second needs.
    assert all(block.told == 12 for block in less if block.trial in (3, 1))
    told = {block.trial: block.told for block in made(int(0.5 * size(whole)))[0]}
    assert (told.pop(3), told.pop(1)) == (12, 12)
    assert 0 < sum(told.values()) < 20 * 12


def test_a_trial_that_needs_more_than_its_part_tells_its_first_questions():
    def made(most_bytes):
        (block,) = make_blocks(
            lambda number: trial_of(number), first=[0], others=[], most_bytes=most_bytes
        )
        return block

    block = made(int(0.6 * len(made(10**7).base64)))
    content, _ = opened(block)
    assert 1 <= block.told < 24
    assert [row["told"] for row in content["search"]] == [n < block.told for n in range(24)]
    assert all("said" in span for span in content["search"][0]["spans"])
    assert not any("said" in span for span in content["search"][-1]["spans"])


def test_runs_without_spans_stay_rows():
    bare = [replace(run, spans=()) for run in trial_of(1, 3).runs["search"]]
    trial = TrialRuns({"search": bare}, {})
    (block,) = make_blocks(lambda number: trial, first=[1], others=[], most_bytes=10**6)
    assert (block.detail, block.told) == ("rows", 0)


def test_joules_of_calls_and_parts_add_up_to_what_the_run_used():
    (block,) = make_blocks(
        lambda number: trial_of(number, 2), first=[1], others=[], most_bytes=10**6
    )
    row = opened(block)[0]["search"][1]
    assert row["used_j"] == pytest.approx(3 * 18, rel=1e-3)
    assert sum(span["energy_j"] for span in row["spans"]) == pytest.approx(row["used_j"], rel=1e-3)
    assert row["parts"] == [
        ["model", pytest.approx(3.0), pytest.approx(30, rel=1e-3)],
        ["model and tools at once", pytest.approx(0.6), pytest.approx(6, rel=1e-3)],
        ["tools", pytest.approx(1.8), pytest.approx(18, rel=1e-3)],
        ["neither", pytest.approx(0.6), None],
    ]


def test_stages_of_queries_in_flight_at_once_add_up_to_their_queries():
    runs = [run_of(0), replace(run_of(1, began_s=0.7), samples=((7.0, 70.0),))]
    found, known = stages(runs), attribute(runs)
    for query in known.queries:
        own = found[query.example_id, query.repeat]
        assert sum(stage.llm_j for stage in own) == pytest.approx(query.llm_j, abs=1e-9)
        assert sum(stage.tool_j for stage in own) == pytest.approx(query.tool_j, abs=1e-9)
    assert stages([replace(run, samples=()) for run in runs]) == {}


def test_an_answer_is_cut_in_its_row():
    long = [replace(run, answer="x" * 9000) for run in trial_of(1, 2).runs["search"]]
    (block,) = make_blocks(
        lambda n: TrialRuns({"search": long}, {}), first=[], others=[1], most_bytes=10**6
    )
    assert opened(block)[0]["search"][0]["answer"] == "x" * 500 + "…"
