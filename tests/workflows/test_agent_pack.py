from collections.abc import Sequence

import pytest
from pydantic import ValidationError

from workflows import AgentPack
from workflows import Demonstration

QUESTIONS = ("who mills flour in elm", "who bakes bread in oak", "who bakes cake in elm")
POOL = AgentPack(
    instruction="Answer.",
    demonstrations=tuple(Demonstration(question=text, answer="x") for text in QUESTIONS),
)


def positions(chosen: Sequence[Demonstration]) -> list[int]:
    return [QUESTIONS.index(demonstration.question) for demonstration in chosen]


def test_fixed_takes_the_first() -> None:
    assert positions(POOL.choose("bakes cake", 2, "fixed")) == [0, 1]


def test_the_nearest_comes_last() -> None:
    assert positions(POOL.choose("who bakes cake", 3, "nearest")) == [0, 1, 2]
    assert positions(POOL.choose("flour", 2, "nearest")) == [1, 0]


def test_ties_prefer_the_first_of_the_pool() -> None:
    assert positions(POOL.choose("nothing in common", 2, "nearest")) == [1, 0]


@pytest.mark.parametrize("how", ["fixed", "nearest"])
def test_a_pool_smaller_than_asked_for_is_given_whole(how: str) -> None:
    assert sorted(positions(POOL.choose("bread", 8, how))) == [0, 1, 2]  # type: ignore[arg-type]
    empty = AgentPack(instruction="Answer.")
    assert list(empty.choose("bread", 3, how)) == []  # type: ignore[arg-type]
    assert list(POOL.choose("bread", 0, how)) == []  # type: ignore[arg-type]


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError):
        AgentPack.model_validate({"instruction": "x", "demos": []})
