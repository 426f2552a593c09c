"""How sure a figure is, from what each question gave: 95 % intervals of shares, means, quantiles and differences.

Apart from `front`, which resamples many configs at once to compare them: these are formulas for one config, each of which
fits its kind of figure better than resampling does. benchmarks/intervals.py measures how often they hold the truth.

Amounts are (questions, answers): the answers to one question stand in a row, and it is questions that were drawn at random.
An end about which so few questions say nothing is infinite, or 0 below amounts none of which is negative.
"""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]

Z = 1.959964
"""Standard errors from an estimate to the ends of its 95 % interval."""

TAIL = 0.025
"""Chance of error at either end."""

SKEWNESS = 1.3
"""Times the skewness of a sample: few amounts seldom hold the rare large ones, so theirs is too small, unbiased or not."""


def wilson(successes: float, count: float) -> Interval:
    """Confidence interval of a share (Wilson 1927); honest at 0 and 1, where resampling has no width."""
    return _wilson(successes / count, count)


def _wilson(share: float, count: float) -> Interval:
    centre = (share + Z * Z / (2 * count)) / (1 + Z * Z / count)
    half = Z / (1 + Z * Z / count) * math.sqrt(share * (1 - share) / count + (Z / (2 * count)) ** 2)
    # Rounding must not put the share itself outside, at 0 and 1 where it is an end.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def effective_count(scores: Floats) -> float:
    """How many independent answers would tell the mean of scores in 0 … 1 as well as these do.

    As many as there are questions where each has one answer that is right or wrong; more with repeats, the less the
    answers to a question agree (Korn and Graubard 1998, Survey Methodology 24, with their correction for few questions),
    and with scores in between, which vary less.
    """
    from scipy.special import stdtrit

    questions, share = len(scores), float(scores.mean())
    if questions < 2 or share in (0.0, 1.0):
        return float(questions)
    most = float(scores.size) if np.isin(scores, (0.0, 1.0)).all() else math.inf
    spread = float(scores.mean(axis=1).var())
    if spread == 0.0:
        return most
    few = (Z / float(stdtrit(questions - 1, 1 - TAIL))) ** 2
    return min(max(share * (1 - share) / spread * questions * few, float(questions)), most)


def share_interval(scores: Floats) -> Interval:
    """Of the mean of scores in 0 … 1: Wilson's for as many answers as these are worth (`effective_count`)."""
    share, count = float(scores.mean()), effective_count(scores)
    return (share, share) if math.isinf(count) else _wilson(share, count)


def mean_interval(amounts: Floats) -> Interval:
    """Of the mean of amounts whose distribution is skewed, as times and costs are.

    Student's interval after the transformation that takes the skewness out (Hall 1992, Journal of the Royal Statistical
    Society B 54): an upper end that rare large amounts may lie beyond is far away, the lower one near. Not known
    of a single question.
    """
    from scipy.special import stdtrit

    each = amounts.mean(axis=1)
    count, mean = len(each), float(each.mean())
    if count < 2:
        return _floor(amounts), math.inf
    deviation = float(each.std(ddof=1))
    if deviation == 0.0:
        return mean, mean
    reach = float(stdtrit(count - 1, 1 - TAIL)) / math.sqrt(count)
    skewness = _skewness(each)
    low = mean - deviation * _untransformed(reach, skewness, count)
    high = mean - deviation * _untransformed(-reach, skewness, count)
    return max(low, _floor(amounts)), high


def _floor(amounts: Floats) -> float:
    return 0.0 if amounts.min() >= 0.0 else -math.inf


def _skewness(amounts: Floats) -> float:
    """The adjusted Fisher-Pearson coefficient, enlarged; 0 for fewer than three amounts, or next to equal ones."""
    count, distances = len(amounts), amounts - amounts.mean()
    variance = float((distances**2).mean())
    if count < 3 or variance == 0.0:
        return 0.0
    moment = float((distances**3).mean()) / math.pow(variance, 1.5)
    return SKEWNESS * moment * math.sqrt(count * (count - 1)) / (count - 2)


def _untransformed(reach: float, skewness: float, count: int) -> float:
    """(mean − μ) ÷ deviation at which Hall's transform of it is `reach`."""
    if abs(skewness) < 1e-6:
        return reach
    return 3 / skewness * float(np.cbrt(1 + skewness * (reach - skewness / (6 * count))) - 1)


def quantile_interval(amounts: Floats, share: float) -> Interval:
    """Of the amount below which a share of all amounts lies, by the ranks between which it must be.

    Ranks are those of the binomial distribution, interpolated (Hutson 1999, Journal of Applied Statistics 26), for as
    many answers as there are questions, or with repeats as they are worth (`effective_count`). Even the largest of
    fewer than 72 amounts may well lie below their 95th percentile: the upper end is then unknown, and the lower
    one has all of the 5 % chance of error. Of the median, both ends are known from 6 amounts on.
    """
    ordered = np.sort(amounts, axis=None)
    count = effective_count((amounts <= np.quantile(ordered, share)).astype(np.float64))
    # Chances that the quantile lies below all amounts, and above all.
    lowest, highest = (1 - share) ** count, share**count
    if max(lowest, highest) <= TAIL:
        tails = TAIL, TAIL
    else:
        tails = (2 * TAIL, 0.0) if lowest <= 2 * TAIL else (0.0, 2 * TAIL)
    return (
        _amount_of_rank(ordered, count, share, tails[0]) if lowest <= tails[0] else _floor(amounts),
        _amount_of_rank(ordered, count, share, 1 - tails[1]) if highest <= tails[1] else math.inf,
    )


def _amount_of_rank(ordered: Floats, count: float, share: float, chance: float) -> float:
    """The amount that is larger than the quantile with this chance, between two that were seen."""
    from scipy.special import bdtrik

    rank = (float(bdtrik(chance, count, share)) + 1) * (len(ordered) + 1) / (count + 1)
    place = min(max(rank, 1.0), float(len(ordered))) - 1
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (ordered[above] - ordered[below]) * (place - below))


def widening(questions: int) -> float:
    """How many times as far resamples of two questions or more should lie from the estimate as they do.

    They know neither that their deviations are from a mean of their own, nor of Student's distribution.
    """
    from scipy.special import stdtrit

    students = float(stdtrit(questions - 1, 1 - TAIL))
    return math.sqrt(questions / (questions - 1)) * students / Z


def difference_interval(
    value: float, interval: Interval, other: float, other_interval: Interval
) -> Interval:
    """Of `value` − `other`, two figures from different questions, by their own intervals.

    The method of variance estimates recovery (Zou and Donner 2008, Statistics in Medicine 27), which for shares is
    Newcombe's of 1998.
    """
    return paired_difference_interval(value, interval, other, other_interval, correlation=0.0)


def paired_difference_interval(
    value: float,
    interval: Interval,
    other: float,
    other_interval: Interval,
    *,
    correlation: float,
) -> Interval:
    """Of `value` − `other`, two figures from the same questions, by their own intervals and how far they go together.

    Zou and Donner's method for dependent figures; for shares it is Newcombe's tenth (1998, Statistics in Medicine 17).
    """
    (low, high), (other_low, other_high) = interval, other_interval

    def reach(one: float, two: float) -> float:
        if not correlation:
            return math.hypot(one, two)
        return math.sqrt(max(0.0, one * one - 2 * correlation * one * two + two * two))

    return (
        value - other - reach(value - low, other_high - other),
        value - other + reach(high - value, other - other_low),
    )
