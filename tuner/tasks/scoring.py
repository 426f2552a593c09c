"""How an answer is compared with a right one; apart from the tasks, because several share them.

Every measure is 0 … 1. Exact match and F1 are those of SQuAD (Rajpurkar et al., arXiv 1606.05250) with
HotpotQA's rule for yes and no (Yang et al., arXiv 1809.09600), but for one thing: where nothing is left of
both sides (the choice "A", or "The The"), the words themselves are compared, so that silence is never right.
"""

import re
from collections import Counter
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
from decimal import Decimal

from tuner.tasks import Example
from workflows.answer import normalise

_WHOLE_ANSWERS = {"yes", "no", "noanswer"}
# A sign counts where it does not follow a term, so that "7-3" holds 7 and 3; a comma where three digits follow it.
_NUMBER = re.compile(
    r"((?<![\w)])[-\u2212])?"
    r"(?:[$€£]([-\u2212])?)?"
    r"((?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
)


def exact_match(answer: str, right: str) -> float:
    """1 when both are the same after normalisation, else 0."""
    if normalise(answer) != normalise(right):
        return 0.0
    if normalise(right):
        return 1.0
    return float(answer.split() != [] and answer.casefold().split() == right.casefold().split())


def f1(answer: str, right: str) -> float:
    """The harmonic mean of precision and recall over normalised words; yes, no and noanswer match whole or not at all."""
    ours, theirs = normalise(answer), normalise(right)
    if ours == theirs:
        return exact_match(answer, right)
    if {ours, theirs} & _WHOLE_ANSWERS:
        return 0.0
    our_words, their_words = ours.split(), theirs.split()
    common = (Counter(our_words) & Counter(their_words)).total()
    return 2 * common / (len(our_words) + len(their_words))


def contains(answer: str, right: str) -> float:
    """1 when the right answer's normalised words stand in the answer in a row, else 0."""
    if not normalise(right):
        return exact_match(answer, right)
    return float(f" {normalise(right)} " in f" {normalise(answer)} ")


def same_number(answer: str, right: str) -> float:
    """1 when the last number in each is the same value ("$1,450.00." is 1450), else 0."""
    value = last_number(answer)
    return float(value is not None and value == last_number(right))


def last_number(text: str) -> Decimal | None:
    """The last number of a text, commas and currency signs left out; None where there is none."""
    value = None
    for minus, inner_minus, digits in _NUMBER.findall(text):
        value = Decimal(digits.replace(",", ""))
        if minus or inner_minus:
            value = -value
    return value


SCORES: Mapping[str, Callable[[str, str], float]] = {
    "exact": exact_match,
    "f1": f1,
    "number": same_number,
    "contains": contains,
}


def best_of(
    measure: Callable[[str, str], float],
) -> Callable[[Example, str], Awaitable[float]]:
    """A task's scorer: the best that the measure gives over an example's right answers."""

    async def score(example: Example, answer: str) -> float:
        return max(measure(answer, right) for right in example.answers)

    return score
