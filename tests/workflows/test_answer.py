import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.answer import normalise


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
