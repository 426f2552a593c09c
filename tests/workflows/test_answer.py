import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.answer import normalise
from workflows.answer import vote


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("The Old  Mill.", "old mill"),
        ("an apple, a pear", "apple pear"),
        ("Theatre and anthem", "theatre and anthem"),
        ("U.S.A.", "usa"),
        ("the", ""),
        ("  ", ""),
    ],
)
def test_normalise(answer: str, normal: str) -> None:
    assert normalise(answer) == normal


@given(st.text("abtheAN .,!\n"))
def test_normalising_again_keeps_words_apart_from_articles(answer: str) -> None:
    once = normalise(answer)
    assert once == " ".join(once.split()) == once.lower()
    assert not {"a", "an", "the"} & set(once.split())


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("The Oak.", "oak", True),
        ("3", " 3.", True),
        ("-3", "3", False),
        ("3 - 1", "3-1", True),
        ("3-1", "3+1", False),
        ("(1, 2)", "12", False),
        ("Oak", "Elm", False),
    ],
)
def test_answers_that_vote_for_the_same(one: str, other: str, same: bool) -> None:
    assert (vote(one) == vote(other)) == same
