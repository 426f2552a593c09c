import pytest

from workflows.ranking import Ranking

TEXTS = ["the red fox", "a blue whale", "red and blue", "a green frog"]


def test_best_first() -> None:
    assert Ranking(TEXTS).best("Blue whale!", 2) == [1, 2]


def test_ties_keep_the_order_of_the_texts() -> None:
    assert Ranking(["x y", "x z", "x w"]).best("x", 3) == [0, 1, 2]
    assert Ranking(TEXTS).best("nothing known", 3) == [0, 1, 2]


def test_more_than_there_are() -> None:
    assert Ranking(TEXTS).best("green", 9) == [3, 0, 1, 2]


@pytest.mark.parametrize("texts", [[], [""], ["?!", "..."]])
def test_texts_without_words(texts: list[str]) -> None:
    assert Ranking(texts).best("red", 5) == list(range(len(texts)))


def test_none_wanted() -> None:
    assert Ranking(TEXTS).best("red", 0) == []
