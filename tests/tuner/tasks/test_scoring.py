from decimal import Decimal

import pytest
from hypothesis import assume
from hypothesis import given
from hypothesis import strategies as st

from tuner.tasks import Example
from tuner.tasks.scoring import SCORES
from tuner.tasks.scoring import best_of
from tuner.tasks.scoring import contains
from tuner.tasks.scoring import exact_match
from tuner.tasks.scoring import f1
from tuner.tasks.scoring import last_number
from tuner.tasks.scoring import same_number
from workflows.answer import normalise

phrases = st.lists(
    st.sampled_from(["the", "a", "Yes", "no", "noanswer", "river", "River,", "Lorn", "14", "!", ""])
).map(" ".join) | st.text(max_size=20)


@given(phrases, phrases)
def test_measures_are_shares_and_words_are_compared_both_ways_alike(one, other):
    for measure in SCORES.values():
        assert 0 <= measure(one, other) <= 1
    for measure in (exact_match, f1, same_number):
        assert measure(one, other) == measure(other, one)
    assert exact_match(one, other) <= f1(one, other)
    assert exact_match(one, other) <= contains(one, other)


@given(phrases)
def test_an_answer_is_like_itself_and_its_normal_form(phrase):
    assume(normalise(phrase))
    for measure in (exact_match, f1, contains):
        assert measure(phrase, phrase) == 1
        assert measure(normalise(phrase), phrase) == 1


@given(phrases)
def test_silence_is_never_right(right):
    for measure in SCORES.values():
        assert measure("", right) == 0


def test_exact_match_looks_past_case_articles_and_punctuation():
    assert exact_match("The river Lorn.", "river lorn") == 1
    assert exact_match("the river Lorn in Karst", "river Lorn") == 0


def test_a_choice_that_is_an_article_is_still_told_apart():
    assert exact_match("A", "a") == 1
    assert exact_match("the", "A") == 0
    assert f1("A", "A") == 1
    assert contains("the", "A") == 0


def test_f1_is_the_harmonic_mean_of_precision_and_recall():
    # 2 of 4 words are right, and 2 of 3 right words are there: 2·(1/2)(2/3)/(1/2 + 2/3)
    assert f1("old stone bridge Karst", "Karst stone quarry") == pytest.approx(4 / 7)
    assert f1("lorn lorn", "lorn") == pytest.approx(2 / 3)
    assert f1("north", "south") == 0


def test_yes_and_no_match_whole_or_not_at_all():
    assert f1("yes, both", "yes") == 0
    assert f1("no", "no way") == 0
    assert f1("noanswer", "noanswer given") == 0
    assert f1("Yes.", "yes") == 1


def test_contains_looks_for_whole_words_in_a_row():
    assert contains("It is the River Lorn, I think.", "river lorn") == 1
    assert contains("Lorna", "Lorn") == 0
    assert contains("the river called Lorn", "river Lorn") == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", "18"),
        ("She makes $18 every day.", "18"),
        ("16 - 3 - 4 = 9", "9"),
        ("1,450,000 dollars", "1450000"),
        ("$1,450.50.", "1450.50"),
        ("between 3-4", "4"),
        ("x=-3", "-3"),
        ("−10 degrees", "-10"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        (".5", "0.5"),
        ("1, 2, 3", "3"),
        ("1,2,3", "3"),
        ("12th", "12"),
        ("2/3", "3"),
        ("(4)-2", "2"),
        ("50%", "50"),
    ],
)
def test_the_last_number_of_a_text(text, value):
    assert last_number(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "none", "$", "-", "...", ","])
def test_a_text_without_a_number(text):
    assert last_number(text) is None
    assert same_number(text, text) == 0


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=2
    )
)
def test_a_number_is_found_however_it_is_written(value):
    for text in (f"{value}", f"{value:,}", f"about 7, so {value:,} dollars.", f"${value:,}."):
        assert last_number(text) == value


def test_numbers_are_compared_by_value():
    assert same_number("The answer is $1,450.00.", "1450") == 1
    assert same_number("1450 and 1", "1450") == 0


async def test_the_best_of_several_right_answers_counts():
    score = best_of(f1)
    example = Example("1", "?", ("Mara Okoye", "M. Okoye"))
    assert await score(example, "m okoye") == 1
    assert await score(example, "Okoye") == pytest.approx(2 / 3)
