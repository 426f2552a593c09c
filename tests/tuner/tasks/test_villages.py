import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tuner.tasks import load_task
from tuner.tasks import task_options
from tuner.tasks.villages import LARGEST_SPLIT
from tuner.tasks.villages import SHARES
from tuner.tasks.villages import Options
from tuner.tasks.villages import load
from workflows.agent_pack import Demonstration
from workflows.tools import load_toolkits

CALLS = {"general": 1, "1 hop": 1, "2 hops": 2, "3 hops": 3, "4 hops": 4}


def villages(examples=40, holdout=80, seed=7):
    return load(Options(examples=examples, holdout=holdout, seed=seed), Path())


def facts_of(task):
    """Title to facts, read back from the sentences."""
    return {
        document.title: dict(sentence[:-1].split(": ") for sentence in document.sentences)
        for document in task.pack.documents
    }


def texts(examples):
    return [example.question for example in examples]


def calls_of(demonstration: Demonstration):
    return sum(step.tool != "finish" for step in demonstration.steps)


def test_a_study_names_it():
    options = task_options("villages")(examples=2, holdout=1)
    task = load_task("villages", options, base=Path())
    assert (task.name, len(task.search), len(task.holdout)) == ("villages", 2, 1)


def test_a_seed_draws_one_task():
    assert villages(seed=7).fingerprint() == villages(seed=7).fingerprint()
    assert villages(seed=7).fingerprint() != villages(seed=8).fingerprint()


@pytest.mark.parametrize("seed", range(10))
def test_no_question_is_asked_twice(seed):
    task = villages(LARGEST_SPLIT, LARGEST_SPLIT, seed)
    asked = texts(task.search + task.holdout)
    shown = [demonstration.question for demonstration in task.pack.demonstrations]
    assert len(set(asked + shown)) == 2 * LARGEST_SPLIT + len(shown)
    assert len({example.id for example in task.search + task.holdout}) == 2 * LARGEST_SPLIT


def test_a_smaller_split_is_the_beginning_of_a_larger_one():
    small, large = villages(12, 5), villages(40, 80)
    assert small.search == large.search[:12]
    assert small.holdout == large.holdout[:5]
    assert small.pack == large.pack


@given(st.integers(1, LARGEST_SPLIT))
def test_every_beginning_of_a_split_has_the_mix(count):
    task = villages(count, count)
    kinds = Counter(example.kind for example in task.search)
    assert kinds == Counter(example.kind for example in task.holdout)
    for kind, share in SHARES.items():
        assert abs(kinds[kind] - count * share / 100) < 1


READINGS = {
    r"What does the (\w+) of (\w+) sell\?": lambda facts, trade, village: (
        facts[trade]["sells"] if trade in facts[village] else None
    ),
    r"What is the (pet|village|land) of (\w+)\?": lambda facts, key, page: facts[page][key],
    r"Who is the (\w+) of (\w+)\?": lambda facts, trade, village: facts[village][trade],
    r"Which pet does the (\w+) in (\w+) keep\?": lambda facts, trade, village: facts[
        facts[village][trade]
    ]["pet"],
    r"Where does the friend of the (\w+) in (\w+) live\?": lambda facts, trade, village: facts[
        facts[facts[village][trade]]["friend"]
    ]["village"],
}


@pytest.mark.parametrize("pattern", READINGS)
def test_pages_hold_the_answers(pattern):
    task = villages(LARGEST_SPLIT, LARGEST_SPLIT)
    facts = facts_of(task)
    found = [
        (match, example)
        for example in task.search + task.holdout
        if (match := re.fullmatch(pattern, example.question))
    ]
    assert found
    for match, example in found:
        assert READINGS[pattern](facts, *match.groups()) == example.answers[0]


def test_answers_are_not_in_their_questions():
    for example in villages(LARGEST_SPLIT, LARGEST_SPLIT).search:
        assert example.answers[0] not in re.findall(r"\w+", example.question)


async def test_the_browser_gives_the_observations_that_are_demonstrated():
    task = villages()
    (toolkit,) = load_toolkits(task.pack)
    for demonstration in task.pack.demonstrations:
        tools = {tool.name: tool for tool in toolkit().tools()}
        *steps, last = demonstration.steps
        assert [await tools[step.tool].call(step.argument) for step in steps] == [
            step.observation for step in steps
        ]
        assert (last.tool, last.argument) == ("finish", demonstration.answer)
        assert demonstration.answer in steps[-1].observation
        assert demonstration.reasoning.endswith(f" is {demonstration.answer}.")


def test_villagers_have_to_be_looked_up():
    task = villages()
    shown = [d for d in task.pack.demonstrations if d.question.startswith("Who")]
    assert len(shown) >= 3
    for demonstration in shown:
        search, lookup, _ = demonstration.steps
        assert demonstration.answer not in search.observation
        assert lookup.tool == "lookup"


def test_demonstrations_are_about_others():
    task = villages(LARGEST_SPLIT, LARGEST_SPLIT)
    facts = facts_of(task)
    shown = " ".join(
        " ".join((d.question, d.answer, *(step.observation for step in d.steps)))
        for d in task.pack.demonstrations
    )
    shown_pages = facts.keys() & set(re.findall(r"\w+", shown))
    asked_pages = facts.keys() & set(
        re.findall(r"\w+", " ".join(texts(task.search + task.holdout)))
    )
    assert shown_pages
    assert asked_pages
    assert not shown_pages & asked_pages


def test_the_first_demonstrations_show_every_depth():
    first = villages().pack.demonstrations[: len(SHARES)]
    assert [calls_of(demonstration) for demonstration in first] == list(CALLS.values())


@pytest.mark.parametrize("seed", [0, 3, 7])
def test_the_nearest_demonstrations_go_the_same_way(seed):
    task = villages(LARGEST_SPLIT, 0, seed)
    for example in task.search:
        for demonstration in task.pack.choose(example.question, 3, "nearest"):
            assert calls_of(demonstration) == CALLS[example.kind]
            assert demonstration.question.split()[0] == example.question.split()[0]


async def test_an_answer_is_right_whatever_its_case_and_punctuation():
    task = villages()
    example = next(one for one in task.search if one.kind == "general")
    (answer,) = example.answers
    assert await task.score(example, f" The {answer.upper()}.") == 1
    for wrong in ("", f"{answer} and more", answer[:-1]):
        assert await task.score(example, wrong) == 0


@pytest.mark.parametrize(
    "keys", [{"examples": 0}, {"examples": LARGEST_SPLIT + 1}, {"holdout": -1}, {"path": "q.jsonl"}]
)
def test_options_out_of_range_are_refused(keys):
    with pytest.raises(ValidationError):
        Options(**keys)
