from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tuner import front
from tuner.errors import UserError
from tuner.objectives import OBJECTIVES
from tuner.records import TrialRecord
from tuner.results import Front
from tuner.results import Point
from tuner.rules import RULES
from tuner.rules import Rule
from tuner.rules import recommend

NAMES = ("accuracy", "latency_p50_s", "energy_wh")
WRITTEN = (
    "knee",
    "max-accuracy",
    "min-energy",
    "min-latency",
    "cheapest-within:0.25",
    "slo:latency_p50_s<=9,energy_wh<=9",
    "weights:accuracy=2,energy_wh=1",
    "weights:accuracy=1,latency_p50_s=3,energy_wh=0.5",
)


def point(number, values, *, widths=(0.2, 1.0, 1.0), membership=0.5, split="holdout", names=NAMES):
    trial = TrialRecord(
        trial_id=number,
        number=number,
        state="complete",
        config=None,
        values=None,
        feasible=True,
        replay_of=None,
        failure=None,
        sources={},
    )
    measured = dict(zip(names, map(float, values), strict=True))
    return Point(
        trial=trial,
        split=split,
        values=measured,
        intervals={
            name: (measured[name] - width / 2, measured[name] + width / 2)
            for name, width in zip(names, widths, strict=False)
        },
        on_front=True,
        membership=membership,
        n=20,
    )


def chosen(text, points, names=NAMES):
    return Rule.parse(text).choose(points, names)


def number(text, points, names=NAMES):
    """The number of the trial chosen, None where no point meets the conditions."""
    try:
        return chosen(text, points, names).point.trial.number
    except UserError:
        if text.startswith("slo"):
            return None
        raise


values = st.tuples(
    st.integers(0, 8).map(lambda right: right / 8), st.integers(1, 12), st.integers(1, 12)
)
widths = st.tuples(*[st.sampled_from((0.25, 1.0, 4.0))] * 3)
memberships = st.sampled_from((0.25, 0.5, 1.0))
fields = st.lists(st.tuples(values, widths, memberships), min_size=1, max_size=8).map(
    lambda rows: [
        point(index, own, widths=width, membership=share)
        for index, (own, width, share) in enumerate(rows)
    ]
)
rules = st.sampled_from(WRITTEN)


def moved(old, name, by):
    """A point whose value of one objective is another, and its interval with it."""
    low, high = old.intervals[name]
    return replace(
        old,
        values={**old.values, name: old.values[name] + by},
        intervals={**old.intervals, name: (low + by, high + by)},
    )


def better(name, by):
    return by if OBJECTIVES[name].direction == "maximize" else -by


# What holds for every rule


@given(fields, rules, st.sampled_from(NAMES), st.integers(1, 40))
def test_a_point_that_becomes_better_stays_chosen(points, rule, name, eighths):
    first = number(rule, points)
    if first is not None:
        points[first] = moved(points[first], name, better(name, eighths / 8))
        assert number(rule, points) == first


@given(fields, rules, st.data(), st.sampled_from(NAMES), st.integers(1, 40))
def test_a_point_that_becomes_worse_is_not_chosen_for_it(points, rule, data, name, eighths):
    other = data.draw(st.integers(0, len(points) - 1))
    if number(rule, points) != other:
        points[other] = moved(points[other], name, -better(name, eighths / 8))
        assert number(rule, points) != other


@given(fields, rules, st.randoms(use_true_random=False))
def test_the_order_of_the_points_does_not_matter(points, rule, random):
    shuffled = random.sample(points, len(points))
    assert number(rule, shuffled) == number(rule, points)


@given(fields, rules)
def test_no_point_dominates_the_one_chosen(points, rule):
    first = number(rule, points)
    if first is not None:
        table = np.array([[each.values[name] for name in NAMES] for each in points])
        oriented = front.oriented(table, [OBJECTIVES[name].direction for name in NAMES])
        assert front.non_dominated(oriented)[first]


@given(fields, rules)
def test_the_reason_names_the_choice_the_questions_and_the_runner_up(points, rule):
    if number(rule, points) is None:
        return
    choice = chosen(rule, points)
    assert f"trial {choice.point.trial.number} " in choice.why
    assert f"{choice.point.n} holdout questions" in choice.why
    if choice.runner_up is None:
        assert choice.why.endswith("; there is no other")
    else:
        assert choice.runner_up != choice.point
        assert f"; the next is trial {choice.runner_up.trial.number} with " in choice.why


def in_units(points, factors, offsets):
    return [
        replace(
            each,
            values={n: each.values[n] * f + o for n, f, o in zip(NAMES, factors, offsets, strict=True)},
            intervals={
                n: (each.intervals[n][0] * f + o, each.intervals[n][1] * f + o)
                for n, f, o in zip(NAMES, factors, offsets, strict=True)
            },
        )
        for each in points
    ]  # fmt: skip


# Powers of two: units that change no digit, since rounding may break a tie.
factors = st.integers(-9, 9).map(lambda exponent: 2.0**exponent)


@given(fields, rules, factors, factors)
def test_units_do_not_matter(points, rule, seconds, joules):
    scaled = in_units(points, (1, seconds, joules), (0, 0, 0))
    if rule.startswith("slo"):
        rule = "slo:latency_p50_s<=9.5,energy_wh<=9.5"
        again = f"slo:latency_p50_s<={9.5 * seconds!r},energy_wh<={9.5 * joules!r}"
        assert number(again, scaled) == number(rule, points)
    else:
        assert number(rule, scaled) == number(rule, points)


balancing = st.sampled_from([rule for rule in WRITTEN if rule.startswith(("knee", "weights"))])


@given(
    fields, balancing, st.tuples(factors, factors, factors), st.tuples(*[st.integers(0, 50)] * 3)
)
def test_balance_does_not_depend_on_where_a_scale_begins(points, rule, scales, offsets):
    assert number(rule, in_units(points, scales, offsets)) == number(rule, points)


# Balance


@given(fields)
def test_the_knee_is_the_worst_in_nothing_where_any_point_is(points):
    table = np.array([[each.values[name] for name in NAMES] for each in points])
    oriented = front.oriented(table, [OBJECTIVES[name].direction for name in NAMES])
    spread = oriented.max(axis=0) > oriented.min(axis=0)
    worst = ((oriented == oriented.max(axis=0)) & spread).any(axis=1)
    if not worst.all():
        assert not worst[number("knee", points)]


def test_the_knee_is_no_extreme_where_the_front_bulges():
    """The distance to the best of each would choose an end: 1 against 1.27."""
    names = ("accuracy", "energy_wh")
    rows = [(1.0, 1.0), (0.0, 0.0), (0.1, 0.9)]
    points = [point(n, row, names=names) for n, row in enumerate(rows)]
    assert number("knee", points, names) == 2


@settings(max_examples=50)
@given(fields)
def test_some_weights_reach_every_point_that_none_dominates_and_that_is_the_best_in_nothing(points):
    table = np.array([[each.values[name] for name in NAMES] for each in points])
    oriented = front.oriented(table, [OBJECTIVES[name].direction for name in NAMES])
    span = np.where(np.ptp(oriented, axis=0) > 0, np.ptp(oriented, axis=0), 1.0)
    losses = (oriented - oriented.min(axis=0)) / span
    for index in np.flatnonzero(front.non_dominated(oriented) & (losses > 0).all(axis=1)):
        weighing = ",".join(
            f"{name}={1 / loss!r}" for name, loss in zip(NAMES, map(float, losses[index]), strict=True)
        )  # fmt: skip
        got = chosen(f"weights:{weighing}", points).point
        assert dict(got.values) == dict(points[index].values)


def test_weights_pull_to_what_weighs_more():
    names = ("accuracy", "energy_wh")
    points = [point(n, (n / 4, n), names=names) for n in range(5)]
    assert number("knee", points, names) == 2
    assert number("weights:accuracy=3,energy_wh=1", points, names) == 3
    assert number("weights:accuracy=1,energy_wh=3", points, names) == 1
    assert number("weights:energy_wh=1", points, names) == 0


# Rules one by one

POINTS = (
    point(3, (0.75, 9, 50), widths=(0.36, 2, 4)),
    point(5, (0.70, 4, 20), widths=(0.36, 2, 4)),
    point(8, (0.55, 2, 10), widths=(0.36, 2, 4)),
    point(9, (0.10, 1, 12), widths=(0.36, 2, 4)),
)


@pytest.mark.parametrize(
    ("rule", "first", "second"),
    [
        ("knee", 8, 5),
        ("max-accuracy", 3, 5),
        ("min-energy", 8, 9),
        ("min-latency", 9, 8),
        ("cheapest-within:0", 3, None),
        ("cheapest-within:0.05", 5, 3),
        ("cheapest-within:0.2", 8, 5),
        ("cheapest-within:0.9", 8, 9),
        ("slo:latency_p50_s<=5", 5, 8),
        ("slo:latency_p50_s<=4", 8, 9),
        ("slo:latency_p50_s<=4,accuracy>=0.6", 5, None),
        ("slo:latency_p50_s <= 10 , energy_wh <= 60", 3, 5),
        ("weights:accuracy=9,latency_p50_s=1,energy_wh=1", 5, 3),
    ],
)
def test_a_rule_chooses_its_point_and_its_runner_up(rule, first, second):
    choice = chosen(rule, POINTS)
    assert choice.point.trial.number == first
    assert (None if choice.runner_up is None else choice.runner_up.trial.number) == second


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (
            "max-accuracy",
            "trial 3 has the highest accuracy of 4 points on 20 holdout questions, 75 % [57, 93]; "
            "the next is trial 5 with 70 % [52, 88], 0.4 standard errors away",
        ),
        (
            "min-energy",
            "trial 8 has the lowest energy_wh of 4 points on 20 holdout questions, 10 Wh/query [8, 12]; "
            "the next is trial 9 with 12 Wh/query [10, 14], 1.4 standard errors away",
        ),
        (
            "knee",
            "trial 8 is the best balanced of 4 points on 20 holdout questions (accuracy 55 % [37, 73], "
            "latency_p50_s 2 s [1, 3], energy_wh 10 Wh/query [8, 12]), and gives up most in accuracy, 31 % of the "
            "way from the best to the worst; the next is trial 5 with 38 % in latency_p50_s",
        ),
        (
            "cheapest-within:0.06",
            "trial 5 has the lowest energy_wh of 2 points within 6 percentage points of the best accuracy on "
            "20 holdout questions, 20 Wh/query [18, 22], with an accuracy of 70 % [52, 88] to trial 3's "
            "75 % [57, 93], 0.4 standard errors away; the next is trial 3 with 50 Wh/query [48, 52], "
            "20.8 standard errors away",
        ),
    ],
)
def test_a_rule_says_why(rule, why):
    assert chosen(rule, POINTS).why == why


def test_ties_go_to_the_surer_then_the_narrower_then_the_lower_number():
    def tied(*rows):
        return [
            point(index, (0.5, 2, 2), widths=(width, 1, 1), membership=share)
            for index, (share, width) in enumerate(rows)
        ]

    for rule in WRITTEN:
        assert number(rule, tied((0.4, 0.1), (0.9, 0.3))) == 1
        assert number(rule, tied((0.9, 0.3), (0.9, 0.1))) == 1
        assert number(rule, tied((0.9, 0.1), (0.9, 0.1))) == 0
    why = chosen("max-accuracy", tied((0.4, 0.1), (0.9, 0.3))).why
    assert why.endswith("trial 0 with the same, and on the front in 40 % of resamples where it is in 90 %")  # fmt: skip


SURE = point(1, (0.5, 3, 5), widths=(0.2, 2, 2))
DOUBTFUL = point(2, (0.8, 4.9, 5), widths=(0.2, 2, 2))


def test_a_condition_is_rather_met_surely_than_with_more_accuracy():
    why = chosen("slo:latency_p50_s<=5", [SURE, DOUBTFUL]).why
    assert why == (
        "trial 1 has the highest accuracy of 1 point to meet latency_p50_s <= 5 with the whole interval, "
        "50 % [40, 60] on 20 holdout questions, latency_p50_s 3 s [2, 4]; the next is trial 2 "
        "with 80 % [70, 90], 4.2 standard errors away, and less surely within the bounds"
    )


def test_a_condition_that_none_meets_surely_is_met_by_estimate_and_said_to_be():
    choice = chosen("slo:latency_p50_s<=5,accuracy>=0.75", [SURE, DOUBTFUL])
    assert choice.point == DOUBTFUL
    assert (
        "by estimate, while the interval of latency_p50_s and accuracy reaches beyond" in choice.why
    )


def test_a_condition_may_be_on_what_is_no_objective():
    both = (*NAMES, "latency_p95_s")
    slow = point(1, (0.5, 1, 1, 30), widths=(0.2, 1, 1, 1), names=both)
    quick = point(2, (0.4, 2, 2, 3), widths=(0.2, 1, 1, 1), names=both)
    choice = Rule.parse("slo:latency_p95_s<=5").choose([slow, quick], NAMES)
    assert choice.point == quick
    with pytest.raises(UserError, match=r"does not measure tokens_total; it has: accuracy, .*latency_p95_s"):  # fmt: skip
        Rule.parse("slo:tokens_total<=5").choose([slow, quick], NAMES)


def test_where_none_qualifies_the_nearest_miss_is_named():
    with pytest.raises(UserError) as caught:
        chosen("slo:latency_p50_s<=2,accuracy>=0.6", POINTS)
    assert str(caught.value) == (
        "none of 4 points meets latency_p50_s <= 2 and accuracy >= 0.6 on 20 holdout questions; the nearest is "
        "trial 8: accuracy is 55 % [37, 73] and misses 0.6 by 8 %"
    )
    assert caught.value.hint
    with pytest.raises(UserError, match=r"trial 9: latency_p50_s is 1 .* misses 0\.5 by 100 %, energy_wh is 12 .* misses 8 by 50 %"):  # fmt: skip
        chosen("slo:latency_p50_s<=0.5,energy_wh<=8", POINTS[3:])


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("best", "unknown rule 'best'"),
        ("", "unknown rule ''"),
        ("knee:2", "takes no argument"),
        ("slo", "needs an argument"),
        ("cheapest-within:", "'' is no number"),
        ("cheapest-within:2%", "'2%' is no number"),
        ("cheapest-within:2", "2 is no difference between two shares"),
        ("cheapest-within:-0.1", "-0.1 is no difference between two shares"),
        ("cheapest-within:nan", "'nan' is no finite number"),
        ("slo:accuracy", "'accuracy' is no bound"),
        ("slo:latency_p50_s<5", "'latency_p50_s<5' is no bound"),
        ("slo:latency_p50_s<=five", "'five' is no number"),
        ("slo:speed<=5", "unknown objective 'speed'; known: accuracy, "),
        ("slo:accuracy<=0.5", "bounds accuracy on its good side; write accuracy>=0.5"),
        ("weights:accuracy", "'' is no number"),
        ("weights:accuracy=0", "one weight above 0"),
        ("weights:accuracy=1,accuracy=2", "one weight above 0"),
        ("weights:speed=1", "unknown objective 'speed'"),
    ],
)
def test_what_is_no_rule_is_refused_with_the_forms_that_are(text, wrong):
    with pytest.raises(UserError) as caught:
        Rule.parse(text)
    assert wrong in str(caught.value)
    said = f"{caught.value} {caught.value.hint}"
    assert all(kind.form in said for kind in RULES.values())


def test_the_forms_shown_can_be_written_as_they_stand():
    for name, kind in RULES.items():
        assert Rule.parse(kind.form).text.startswith(name)


@pytest.mark.parametrize("rule", ["min-energy", "cheapest-within:0.1", "weights:energy_wh=1"])
def test_a_rule_needs_its_objective(rule):
    with pytest.raises(UserError, match="objective") as refused:
        Rule.parse(rule).choose(POINTS, NAMES[:1])
    assert "accuracy" in refused.value.hint


def test_cheap_is_the_energy_else_the_price_else_the_tokens_else_the_time():
    names = ("accuracy", "latency_mean_s", "tokens_total", "cost_usd", "energy_wh")
    rows = [(0.9, 1, 2, 3, 4), (0.9, 4, 1, 2, 3), (0.9, 3, 4, 1, 2), (0.9, 2, 3, 4, 1)]
    points = [point(n, row, widths=(1,) * 5, names=names) for n, row in enumerate(rows)]
    firsts = [
        Rule.parse("cheapest-within:0.1").choose(points, names[:last]).point.trial.number
        for last in (5, 4, 3, 2)
    ]
    assert firsts == [3, 2, 1, 0]


def test_what_is_recommended_is_chosen_by_the_holdout_questions_where_there_are_any():
    lucky = point(0, (0.9, 1, 1), split="search")
    steady = point(1, (0.8, 1, 2), split="search")
    rule = Rule.parse("max-accuracy")
    searched = recommend(Front(NAMES, (lucky, steady), ()), rule)
    assert searched.point == lucky
    assert searched.why.endswith("; no holdout questions have confirmed it")
    again = (point(0, (0.3, 1, 1)), point(1, (0.7, 1, 2)))
    confirmed = recommend(Front(NAMES, (lucky, steady), again), rule)
    assert confirmed.point == again[1]
    assert "on 20 holdout questions" in confirmed.why


def broken(number, seconds, **more):
    return replace(point(number, (0.9, seconds, 1), **more), excess={"latency_p50_s": seconds - 5})


def test_a_point_that_breaks_a_constraint_on_the_holdout_questions_is_left_out_and_named():
    front = Front(NAMES, (SURE, DOUBTFUL), (SURE, broken(7, 6)))
    choice = recommend(front, Rule.parse("max-accuracy"))
    assert choice.point == SURE
    assert choice.why.endswith(
        "; beyond the constraints there: trial 7 (latency_p50_s is 6 s [5.5, 6.5] and misses its bound by 1 s)"
    )


@pytest.mark.parametrize("split", ["search", "holdout"])
def test_where_all_break_a_constraint_the_nearest_miss_is_named(split):
    points = (broken(7, 10, split=split), broken(9, 6, split=split))
    front = {
        "search": Front(NAMES, (), (), infeasible=points),
        "holdout": Front(NAMES, (SURE,), points),
    }[split]
    with pytest.raises(UserError, match=rf"constraints on 20 {split} questions; the nearest is trial 9: latency_p50_s is 6 s .* by 1 s"):  # fmt: skip
        recommend(front, Rule.parse("knee"))


def test_an_interval_with_an_end_that_nobody_knows_leaves_its_bound_in_doubt():
    unknown = replace(SURE, intervals={**SURE.intervals, "latency_p50_s": (2.0, float("inf"))})
    why = chosen("slo:latency_p50_s<=5", [unknown]).why
    assert "by estimate, while the interval of latency_p50_s reaches beyond" in why
    assert "latency_p50_s 3 s [2, ∞]" in why
    quick = point(4, (0.4, 2.5, 5))
    assert "trial 1 with 3 s [2, ∞]" in chosen("min-latency", [unknown, quick]).why


def test_without_points_there_is_nothing_to_choose():
    with pytest.raises(UserError, match="no trial is complete") as caught:
        recommend(Front(NAMES, (), ()), Rule.parse("knee"))
    assert caught.value.hint
