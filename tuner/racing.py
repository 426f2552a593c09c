"""When the questions seen so far are enough to stop a config: once it is sure that one measured in whole beats it.

Apart from `front`, which compares values as they are, and from `intervals`, which say how sure values are at one time:
what is claimed here holds however often one looks, and of all the study's questions, of which only the first were seen.

say what each question took from a config as losses, 0 or more: mistakes, seconds, joules
for each objective and each rival, whose losses on all questions are known:
    suppose that the config loses no more than the rival in all; as the order of the questions is random, what it has
    left to lose is then shared out at random among those that are left, and a bet on the next loss is fair at best
    bet, question after question, that it is more
the config is beaten once every objective has won a fortune against the same rival

Money that fair bets make of 1 exceeds 1/error at any time with a chance of no more than `error` (Ville 1939). Nothing is
assumed of the losses but that none is negative: bets of this kind are right for skewed, graded and tied ones alike. They
are those of audits of elections (Waudby-Smith, Stark and Ramdas 2021, "RiLACS", section 3) and of confidence sequences
for sampling without replacement (Waudby-Smith and Ramdas 2024, Journal of the Royal Statistical Society B 86, section 5).
"""

import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner import front
from tuner.front import Flags
from tuner.front import Floats
from tuner.objectives import Objective

STAKES = np.array([0.7, 0.95])
"""Shares of the money that are bet, each by a part of it; what pays is large, since few questions are left to bet on."""

PAIRINGS = np.array([0.0, 0.5, 1.0])
"""How much of what is known of a question is taken into account, each by a part of the money."""

ACCURACY_PARTS = 8
"""Parts of the error allowed to accuracy for one to each other objective: what a config costs shows within a few
questions, how often it is right takes many."""

LATEST = 0.75
"""Share of the questions after which nobody is stopped any more: little is left to be saved, and who could not be told
from others by then lies near the front, where the study wants to know it in whole."""


class Race:
    """One config against those that were measured in whole, on the same questions in the same order.

    `measured` has (questions, objectives) amounts by trial; trials with an amount that is missing are left out. It is
    for as long as the config runs: what others find meanwhile may count in its next race.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        measured: Mapping[int, Floats],
        *,
        confidence: float,
    ) -> None:
        self._objectives = objectives
        known = {
            trial: amounts
            for trial, amounts in sorted(measured.items())
            if (self._losses(amounts) >= 0.0).all()
        }
        self._rivals: tuple[int, ...] = ()
        if not known:
            return
        amounts = np.stack(list(known.values()))
        values = [each.summary(amounts[..., k]) for k, each in enumerate(objectives)]
        directions = [each.direction for each in objectives]
        on_front = front.non_dominated(front.oriented(np.stack(values, axis=1), directions))
        self._rivals = tuple(
            trial for trial, is_rival in zip(known, on_front, strict=True) if is_rival
        )
        self._amounts = amounts[on_front]
        losses = self._losses(amounts)
        self._bets = [
            _Total.of(losses[..., k], on_front)
            if each.quantile is None
            else _Quantile.of(losses[..., k], on_front, each)
            for k, each in enumerate(objectives)
        ]
        parts = [ACCURACY_PARTS if each.unit == "share" else 1 for each in objectives]
        self._fortunes = [math.log(sum(parts) / part / (1.0 - confidence)) for part in parts]

    def beaten_by(self, seen: Floats) -> int | None:
        """A trial that beats the config for sure, given its (questions, objectives) amounts; None while there is none.

        To beat is to be at least as good in every objective over all questions, and better in one. What is seen ends
        before the first question that lacks an amount: of questions under way at once the quickest end first, and
        say little of the others. With the chance `confidence` or more, no answer is wrong, however often this is
        asked while the config runs and whoever is named. None after LATEST of the questions.
        """
        missing = ~(self._losses(seen) >= 0.0).all(axis=1)
        count = int(missing.argmax()) if missing.any() else len(seen)
        if not self._rivals or not 0 < count <= LATEST * self._amounts.shape[1]:
            return None
        seen = seen[:count]
        # One that gave the same on every question may be its twin, which nobody beats.
        is_beaten = (self._amounts[:, :count] != seen).any(axis=(1, 2))
        is_worse = np.zeros(len(self._rivals), dtype=np.bool_)
        losses = self._losses(seen)
        for k, (bets, fortune) in enumerate(zip(self._bets, self._fortunes, strict=True)):
            as_much, more = bets.money(losses[:, k])
            is_beaten &= as_much >= fortune
            is_worse |= more >= fortune
        beating = np.flatnonzero(is_beaten & is_worse)
        return self._rivals[beating[0]] if len(beating) else None

    def _losses(self, amounts: Floats) -> Floats:
        """What each question took: amounts of what is minimised; of scores, what they lack to 1."""
        gains = [each.direction == "maximize" for each in self._objectives]
        return np.asarray(np.where(gains, 1.0 - amounts, amounts))


@dataclass(frozen=True, slots=True)
class _Total:
    """Bets on a mean, that is on a total."""

    totals: Floats
    """(rivals,) losses over all questions."""
    is_whole: bool
    """Whether all losses are whole numbers, as those of answers that are right or wrong: one less is then 1 less."""
    ease: Floats

    @classmethod
    def of(cls, losses: Floats, on_front: Flags) -> "_Total":
        """Of the (trials, questions) losses of all, against those on the front."""
        is_whole = bool((losses == np.floor(losses)).all())
        return cls(losses[on_front].sum(axis=1), is_whole, _ease(losses.mean(axis=0)))

    def money(self, seen: Floats) -> tuple[Floats, Floats]:
        """(rivals,) log of the money won by betting that the config loses as much as each rival, and that it loses more."""
        losses = np.broadcast_to(seen, (len(self.totals), len(seen)))
        more = _log_money(losses, self.totals, self.ease)
        if not self.is_whole or (seen != np.floor(seen)).any():
            return more, more
        return _log_money(losses, self.totals - 1.0, self.ease), more


@dataclass(frozen=True, slots=True)
class _Quantile:
    """Bets on a quantile, that is on how many questions take more than the rival's quantile."""

    limits: Floats
    """(rivals,) the quantile over all questions."""
    most: int
    """How many questions may take more than the limit without the quantile being above it for sure."""
    ease: Floats

    @classmethod
    def of(cls, losses: Floats, on_front: Flags, objective: Objective) -> "_Quantile":
        """Of the (trials, questions) losses of all, against those on the front."""
        assert objective.quantile is not None
        limits, questions = objective.summary(losses), losses.shape[1]
        # The quantile lies between this place in ascending order and the next.
        place = int(objective.quantile * (questions - 1))
        beyond = (losses > limits[:, None]).mean(axis=0)
        return cls(limits[on_front], questions - place - 1, _ease(beyond))

    def money(self, seen: Floats) -> tuple[Floats, Floats]:
        """As `_Total.money`; what is above a quantile is at least at it."""
        beyond = (seen > self.limits[:, None]).astype(np.float64)
        more = _log_money(beyond, np.full(len(beyond), float(self.most)), self.ease)
        return more, more


def _ease(losses: Floats) -> Floats:
    """(questions,) by how much each is easier than the hardest, in mean losses: alike for all configs, more or less."""
    mean = losses.mean()
    return np.asarray((losses.max() - losses) / (mean if mean > 0.0 else 1.0))


def _log_money(losses: Floats, most: Floats, ease: Floats) -> Floats:
    """(rivals,) log of the most money had at any time from 1, by betting that losses come to more than `most` in all.

    `losses` are (rivals, questions seen), `most` (rivals,), `ease` (questions in all). Infinite where they do already.

    What is bet on is the loss, in mean losses of `most`, and a part of the question's ease, whose total is known: an
    easy question that was lost says more, and by chance hard ones may come first. Of two values of `most`, the lower
    has won more on the same losses, so that all wrong claims are wrong together with that about the true total: that is
    why the number of rivals costs nothing.
    """
    questions, count = len(ease), losses.shape[1]
    unit = np.where(most > 0.0, most, 1.0) / questions
    weighed = (losses / unit[:, None])[:, None] + PAIRINGS[:, None] * ease[:count]
    before = np.cumsum(weighed, axis=2) - weighed
    in_all = questions + PAIRINGS * ease.sum()
    expected = (in_all[:, None] - before) / (questions - np.arange(count))
    gains = np.where(weighed > 0.0, np.inf, 1.0)  # where nothing was left to lose
    np.divide(weighed, expected, out=gains, where=expected > 0.0)
    won = np.log1p(STAKES[:, None] * (gains[:, :, None] - 1.0)).cumsum(axis=3)
    parts = won.reshape(len(losses), -1, count)
    money = np.logaddexp.reduce(parts, axis=1).max(axis=1) - math.log(parts.shape[1])
    money[most <= 0.0] = -np.inf
    money[losses.sum(axis=1) > most] = np.inf
    return np.asarray(money)
