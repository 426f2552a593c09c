import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.condition import Condition

SIGNS = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
    "!=": operator.ne,
}


@given(
    st.sampled_from(sorted(SIGNS)),
    st.integers(-5, 5) | st.floats(-5, 5),
    st.integers(-5, 5) | st.floats(-5, 5),
)
def test_a_number_is_compared_as_the_sign_says(sign, value, limit):
    condition = Condition.parse(f"{sign} {limit!r}")
    assert condition.holds(value) is SIGNS[sign](value, limit)


@pytest.mark.parametrize(
    ("text", "sign", "value"),
    [
        (">= 1", ">=", 1),
        (" <=0.5 ", "<=", 0.5),
        ("<= 1e-5", "<=", 1e-5),
        ("== true", "==", True),
        ("!= nearest", "!=", "nearest"),
        ("nearest", "==", "nearest"),
        (3, "==", 3),
        (0.5, "==", 0.5),
        (False, "==", False),
    ],
)
def test_text_gives_sign_and_value_and_anything_else_means_equality(text, sign, value):
    condition = Condition.parse(text)
    assert (condition.sign, condition.value, type(condition.value)) == (sign, value, type(value))


@pytest.mark.parametrize(
    "text", ["=> 1", "= 1", ">=", "<", ">= [1]", ">= {a: 1}", ">= ~", ">= [", "== 2024-01-05"]
)
def test_what_cannot_be_compared_is_refused(text):
    with pytest.raises(ValueError, match=r"compare|comparison"):
        Condition.parse(text)


@pytest.mark.parametrize("sign", ["<", "<=", ">", ">="])
def test_words_and_numbers_have_no_order(sign):
    assert not Condition.parse(f"{sign} 1").holds("nearest")
    assert not Condition.parse(f"{sign} nearest").holds(1)


@pytest.mark.parametrize("text", ["<= 20", ">= 0.5", "!= fixed"])
def test_it_is_shown_as_it_is_written(text):
    assert str(Condition.parse(text)) == text
