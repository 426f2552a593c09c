"""Recorded tables: what a file says is what is given, smaller budgets included, and what is no table is refused by line and key."""

import gzip
import json
from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner import table as tables
from tuner.errors import DataError
from tuner.errors import UserError
from tuner.table import Header
from tuner.table import Table
from workflows.config import AgentConfig

Lines = list[dict[str, Any]]
Write = Callable[[Lines], Path]


def react(steps: int, shots: int = 0) -> AgentConfig:
    """A config that works in rounds."""
    return AgentConfig(workflow="react", model="m", params={"few_shot": shots, "max_steps": steps})


DIRECT = AgentConfig(workflow="direct", model="m", params={"few_shot": 0})


def cost(seconds: float, **other: Any) -> dict[str, Any]:
    """What took so many seconds, and as many joules and calls."""
    return {
        "latency_s": seconds,
        "energy_j": seconds,
        "tokens_in": int(10 * seconds),
        "tokens_out": int(seconds),
        "tokens_cached": 0,
        "cost_usd": None,
        "llm_calls": int(seconds),
        "tool_calls": 0,
        "llm_s": seconds,
        "tool_only_s": 0.0,
        **other,
    }


def config_line(config: AgentConfig, anytime: str | None = None, **other: Any) -> dict[str, Any]:
    """A config as the file has it."""
    return {
        "id": config.hash(),
        **config.model_dump(),
        "anytime": anytime,
        "energy_source": "nvml-counter",
        "energy_scope": "GPU-0",
        **other,
    }


def row(
    config: AgentConfig, example: str, score: float, seconds: float, **other: Any
) -> dict[str, Any]:
    """A row as the file has it."""
    return {"config": config.hash(), "example": example, **cost(seconds), "score": score, **other}


def at(budget: int, score: float | None, seconds: float) -> dict[str, Any]:
    """A checkpoint as the file has it."""
    return {"budget": budget, "score": score, **cost(seconds)}


def header(configs: int, rows: int, **other: Any) -> dict[str, Any]:
    """The first line."""
    settings = {"model": "hosted_vllm/m", "api_base": None}
    ran = {
        "settings": settings,
        "serve": None,
        "cache": "cleared",
        "energy": {"source": "nvml-counter", "scope": "GPU-0", "gpus": 1},
    }
    return {
        "format_version": 1,
        "study": "recorded",
        "recorded_on": "2026-01-31",
        "task": {"name": "villages", "options": {"seed": 7}, "fingerprint": "f"},
        "search": ["q1", "q2"],
        "holdout": ["q3"],
        "search_space": {"name": "s", "fingerprint": "f"},
        "models": {"m": {"model": "hosted_vllm/m"}},
        "load": {"concurrency": 1, "rate": None, "warm_up": 0, "cool_down": 0},
        "cache": "isolated",
        "provenance": {
            "machine": "Linux",
            "python": "3.11",
            "versions": {"tuner": "0.1.0"},
            "models": {"m": ran},
        },
        "configs": configs,
        "rows": rows,
        **other,
    }


def small() -> Lines:
    """Two configs on two questions: the agent needs two rounds for the first question, and does not end on the second."""
    configs = [config_line(DIRECT), config_line(react(3), "max_steps")]
    rows = [
        row(DIRECT, "q1", 0, 1),
        row(DIRECT, "q2", 1, 1, energy_j=None),
        row(react(3), "q1", 1, 2, checkpoints=[at(1, 0, 1), at(2, 1, 2)]),
        row(
            react(3),
            "q2",
            0,
            3.5,
            error="ModelError: cut",
            checkpoints=[at(1, 0, 1), at(2, 0.5, 2)],
        ),
    ]
    return [header(len(configs), len(rows)), *configs, *rows]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes lines into a file."""

    def to_file(lines: Lines, name: str = "table.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    return to_file


def test_runs_are_what_was_recorded_and_marked(write: Write) -> None:
    table = Table.read(write(small()))
    first, second = table.runs(react(3))
    assert (first.example_id, first.score, first.latency_s, first.error) == ("q1", 1, 2, None)
    assert (first.energy.gross_j, first.energy.source) == (2, "replayed nvml-counter")
    assert (first.tokens_in, first.llm_calls, first.cost_usd) == (20, 2, None)
    assert (second.score, second.error) == (0, "ModelError: cut")
    unmetered = table.runs(DIRECT)[1].energy
    assert unmetered.gross_j is None
    assert unmetered.problem


def test_a_smaller_budget_is_what_the_checkpoints_say_and_what_ended_sooner_as_it_is(
    write: Write,
) -> None:
    lines = small()
    lines[5]["checkpoints"] = [at(1, 0, 1)]  # answered in the second round
    table = Table.read(write(lines))
    one, two = table.runs(react(1)), table.runs(react(2))
    assert [(run.score, run.latency_s, run.llm_calls) for run in one] == [(0, 1, 1), (0, 1, 1)]
    assert [(run.score, run.latency_s, run.energy_j) for run in two] == [(1, 2, 2), (0.5, 2, 2)]
    assert two[1].error is None  # it failed later
    assert table.configs == (DIRECT, react(3), react(1), react(2))
    assert table.derived_from(react(2)) == react(3)
    assert table.derived_from(react(3)) is None
    assert table.runs(react(4)) == table.runs(react(2, shots=1)) == ()


def test_what_a_call_would_have_had_to_answer_is_lacking(write: Write) -> None:
    lines = small()
    lines[6]["checkpoints"] = [at(1, None, 1), at(2, 0.5, 2)]
    table = Table.read(write(lines))
    assert [run.example_id for run in table.runs(react(1))] == ["q1"]
    assert table.configs == (DIRECT, react(3), react(2))
    scores = table.fields([react(1)], ["score", "latency_s"])
    np.testing.assert_array_equal(scores, [[[0, 1], [np.nan] * 2, [np.nan] * 2]])


def test_a_budget_comes_from_its_own_rows_or_from_the_next_larger_that_tells_all(
    write: Write,
) -> None:
    lines = small()
    lines[5:] = [
        row(react(3), q, 1, 3, checkpoints=[at(1, 0, 1.5), at(2, None, 2)]) for q in ("q1", "q2")
    ]
    lines[3:3] = [config_line(react(2), "max_steps"), config_line(react(5), "max_steps")]
    lines += [row(react(2), q, 1, 2.5) for q in ("q1", "q2")]
    lines += [
        row(react(5), q, 1, 5, checkpoints=[at(1, 1, 1.25), at(4, 1, 4)]) for q in ("q1", "q2")
    ]
    lines[0] = header(4, 8)
    table = Table.read(write(lines))
    seconds = {n: table.runs(react(n))[0].latency_s for n in range(1, 6)}
    # At 1 react(2) has no checkpoint, so that it had ended: by the format's own rule.
    assert seconds == {1: 2.5, 2: 2.5, 3: 3, 4: 4, 5: 5}


def test_fields_are_arrays_with_gaps_where_nothing_was_measured(write: Write) -> None:
    lines = small()
    lines.append(row(DIRECT, "q1", 0.25, 4, repeat=1))
    lines[0]["rows"] += 1
    table = Table.read(write(lines))
    found = table.fields([react(2), DIRECT], ["energy_j", "score"])
    np.testing.assert_array_equal(
        found,
        [
            [[2, 1], [2, 0.5], [np.nan, np.nan]],
            [[1, 0], [np.nan, 1], [np.nan, np.nan]],
        ],
    )
    again = table.fields([DIRECT], ["score"], questions=["q2", "q1"], repeat=1)
    np.testing.assert_array_equal(again, [[[np.nan], [0.25]]])


@pytest.mark.parametrize("name", ["again.jsonl", "again.jsonl.gz"])
def test_what_is_written_is_read_and_the_same_table_is_the_same_bytes(
    write: Write, tmp_path: Path, name: str
) -> None:
    table = Table.read(write(small()))
    table.write(tmp_path / name)
    again = Table.read(tmp_path / name)
    assert (again.header, again.recorded, again.rows) == (table.header, table.recorded, table.rows)
    assert again.fingerprint == table.fingerprint
    before = (tmp_path / name).read_bytes()
    again.write(tmp_path / name)
    assert (tmp_path / name).read_bytes() == before


def test_another_figure_is_another_fingerprint(write: Write) -> None:
    lines = small()
    first = Table.read(write(lines)).fingerprint
    lines[4]["latency_s"] = 1.5
    assert Table.read(write(lines)).fingerprint != first


def test_a_place_that_cannot_be_written_is_named(write: Write, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere/t.jsonl.gz: cannot be written"):
        Table.read(write(small())).write(tmp_path / "nowhere" / "t.jsonl.gz")


def changed(line: int, key: str, value: Any) -> Callable[[], Lines]:
    """The small table with another value somewhere: `checkpoints.0.budget` is one of a row."""

    def make() -> Lines:
        lines = small()
        *above, last = key.split(".")
        place: Any = lines[line - 1]
        for part in above:
            place = place[int(part) if part.isdigit() else part]
        place[last] = value
        return lines

    return make


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (changed(1, "format_version", 2), "line 1: format_version: Input should be 1; found 2"),
        (changed(1, "rows", 5), "holds 7 lines, and its header promises 8"),
        (changed(1, "provenance", {}), "line 1: provenance.machine: Field required"),
        (changed(2, "params", {"few_shot": 1}), "line 2: id: is "),
        (changed(2, "model", "n"), "line 2: id: is "),
        (changed(3, "anytime", "thoughts"), "line 3: anytime: thoughts is no whole number"),
        (
            changed(4, "score", 1.5),
            "line 4: score: Input should be less than or equal to 1; found 1.5",
        ),
        (changed(4, "latency_s", -1), "line 4: latency_s: Input should be greater than"),
        (changed(4, "latency_s", float("nan")), "line 4: latency_s: Input should be"),
        (changed(4, "latency_s", "1"), "line 4: latency_s: Input should be a valid number"),
        (changed(4, "tokens_in", 10**400), "line 4: tokens_in"),
        (changed(4, "answer", "seven"), "line 4: answer: Extra inputs are not permitted"),
        (changed(4, "config", "f" * 16), "line 4: config: 'ffffffffffffffff' is none"),
        (changed(4, "example", "q9"), "line 4: example: 'q9' is none of the header's questions"),
        (
            changed(5, "example", "q1"),
            "line 5: repeat: 0 of q1 under this config stands on an earlier line",
        ),
        (changed(4, "checkpoints", [at(1, 0, 1)]), "line 4: checkpoints: one at budget 1"),
        (
            changed(6, "checkpoints.1.budget", 1),
            r"line 6: checkpoints: their budgets do not ascend: \[1, 1\]",
        ),
        (
            changed(6, "checkpoints.1.budget", 3),
            "line 6: checkpoints: one at budget 3 is not below",
        ),
        (changed(6, "checkpoints.1.score", 2), "line 6: checkpoints.1.score: Input should be less"),
    ],
)
def test_what_is_malformed_is_refused_by_file_line_and_key(
    write: Write, lines: Callable[[], Lines], message: str
) -> None:
    path = write(lines())
    with pytest.raises(DataError, match=message) as refused:
        Table.read(path)
    assert str(refused.value).startswith(f"{path}: ")


def test_a_config_stands_once(write: Write) -> None:
    lines = small()
    lines[2:2] = [config_line(DIRECT)]
    lines[0]["configs"] += 1
    with pytest.raises(DataError, match=r"line 3: id: .* stands on an earlier line too"):
        Table.read(write(lines))


def test_a_model_that_nothing_is_known_of_is_refused(write: Write) -> None:
    other = AgentConfig(workflow="direct", model="n")
    lines = [header(1, 0), config_line(other)]
    with pytest.raises(
        DataError, match=r"line 2: model: n is none of the header.s provenance\.models"
    ):
        Table.read(write(lines))


def bombs() -> Mapping[str, bytes]:
    """Files that are no tables, one of which unpacks to more than it looks."""
    packed = gzip.compress(json.dumps(small()[0]).encode() + b"\n" + b" " * 5_000_000)
    return {
        "empty": b"",
        "not JSON": b"PK\x03\x04 something else",
        "an array": b"[1, 2]",
        "not text": b"\xff\xfe",
        "cut off": gzip.compress(b'{"format_version": 1}' * 1000)[:40],
        "deep": b"[" * 100_000,
        "large": packed,
    }


@pytest.mark.parametrize("kind", bombs())
def test_what_is_no_table_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(tables, "MOST_BYTES", 1_000_000)
    path = tmp_path / "table.jsonl.gz"
    path.write_bytes(bombs()[kind])
    with pytest.raises(DataError, match=r"table\.jsonl\.gz: "):
        Table.read(path)


def test_a_line_without_end_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LONGEST_LINE", 2000)
    lines = small()
    lines[3]["error"] = "x" * 3000
    with pytest.raises(DataError, match="line 4: is longer than"):
        Table.read(write(lines))


def test_a_file_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file") as refused:
        Table.read(tmp_path / "table.jsonl.gz")
    assert refused.value.hint is not None
    assert "tuner record" in refused.value.hint


def test_a_header_is_read_without_the_rest(write: Write) -> None:
    path = write(small())
    whole = Header.read(path)
    path.write_text(path.read_text().partition("\n")[0] + "\n{broken")
    assert Header.read(path) == whole
    assert whole.questions == ("q1", "q2", "q3")


SCORES = st.lists(st.sampled_from([0.0, 0.5, 1.0, None]), max_size=5)


@given(st.lists(SCORES, min_size=1, max_size=4), st.integers(1, 6))
def test_every_smaller_budget_takes_the_checkpoint_of_its_round(
    rounds: list[list[float | None]], budget: int
) -> None:
    """Whatever the rounds gave: the runs at a budget are the checkpoints at it, the known ones, and else the whole rows."""
    config = react(6)
    questions = [f"q{n}" for n in range(len(rounds))]
    made = Header.model_validate_json(
        json.dumps(header(1, len(rounds), search=questions, holdout=[]))
    )
    recorded = tables.RecordedConfig.model_validate(config_line(config, "max_steps"))
    rows = [
        tables.Row.model_validate_json(
            json.dumps(
                row(
                    config,
                    question,
                    1.0,
                    len(scores) + 1.0,
                    checkpoints=[at(n, score, n) for n, score in enumerate(scores, 1)],
                )
            )
        )
        for question, scores in zip(questions, rounds, strict=True)
    ]
    table = Table(made, {recorded.id: recorded}, {recorded.id: rows})
    expected = {
        question: (scores[budget - 1], float(budget))
        if budget <= len(scores)
        else (1.0, len(scores) + 1.0)
        for question, scores in zip(questions, rounds, strict=True)
    }
    found = {run.example_id: (run.score, run.latency_s) for run in table.runs(react(budget))}
    assert found == {q: each for q, each in expected.items() if each[0] is not None}
    array = table.fields([react(budget)], ["score"])[0, :, 0]
    assert np.isnan(array).sum() == len(questions) - len(found)
