"""The pooled sampler on spaces whose every answer is known."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.condition import Condition
from tuner.front import MOST_NEAR
from tuner.front import hypervolume
from tuner.front import non_dominated
from tuner.objectives import OBJECTIVES
from tuner.samplers.pooled import BLOCK
from tuner.samplers.pooled import FIRST_CONFIGS
from tuner.samplers.pooled import SHOWN_AFTER
from tuner.samplers.pooled import Block
from tuner.samplers.pooled import Pool
from tuner.samplers.pooled import encode

NAMES = ("accuracy", "latency_p50_s", "energy_wh")
OBJECTIVES_ = [OBJECTIVES[name] for name in NAMES]
QUESTIONS = 24

FLATS: list[dict[str, Any]] = [
    *({"workflow": "cheap", "cheap.shots": shots} for shots in range(7)),
    *(
        {"workflow": "dear", "dear.shots": shots, "dear.steps": steps, "dear.style": style}
        for shots in range(5)
        for steps in (1, 2, 4, 8)
        for style in ("short", "long")
    ),
]


def answers(seed: int, questions: int = QUESTIONS) -> np.ndarray[Any, Any]:
    """(configs, questions, objectives): accuracy rises with shots and steps, cost with both."""
    rng = np.random.default_rng(seed)
    hardness = rng.normal(0, 1, questions)
    amounts = np.zeros((len(FLATS), questions, 3))
    for place, flat in enumerate(FLATS):
        is_dear = flat["workflow"] == "dear"
        shots = flat.get("dear.shots", flat.get("cheap.shots", 0))
        steps = flat.get("dear.steps", 1)
        reach = -1.5 + 0.4 * shots + 0.8 * is_dear * np.log2(steps)
        seconds = (0.1 + 0.05 * shots) * steps * (3 if is_dear else 1)
        seconds *= 2 if flat.get("dear.style") == "long" else 1
        amounts[place, :, 0] = reach - hardness + rng.logistic(size=questions) > 0
        amounts[place, :, 1] = seconds * np.exp(rng.normal(0, 0.1, questions))
        amounts[place, :, 2] = 0.01 * seconds * np.exp(rng.normal(0, 0.1, questions))
    return amounts


def measured(amounts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(configs, objectives)."""
    return np.stack([o.summary(amounts[:, :, k]) for k, o in enumerate(OBJECTIVES_)], axis=1)


TRUTH = measured(answers(0, questions=4000))
"""What the knobs do, whatever the questions."""


def pool(seed: int = 0, **options: Any) -> Pool:
    options = {"questions": QUESTIONS, "cost": 1, **options}
    return Pool(FLATS, OBJECTIVES_, seed=seed, **options)


def play(sampler: Pool, amounts: np.ndarray[Any, Any], blocks: int) -> list[tuple[int, int]]:
    """Give it what it asks for; the (config, question) pairs in order."""
    asked = []
    known = np.full(amounts.shape, np.nan)
    for step in range(blocks):
        block = sampler.propose(step)
        if block is None:
            break
        questions = list(block.questions)
        asked += [(block.config, question) for question in questions]
        known[block.config, questions] = amounts[block.config, questions]
        sampler.observe(block.config, known[block.config])
    return asked


def test_the_same_observations_and_step_give_the_same_block() -> None:
    amounts = answers(1)
    first, second = pool(), pool()
    assert play(first, amounts, 30) == play(second, amounts, 30)
    assert first.propose(30) == second.propose(30)
    assert {first.propose(step) for step in range(100, 130)} != {first.propose(30)}
    assert play(pool(seed=1), amounts, 30) != play(pool(), amounts, 30)


def test_no_question_is_asked_twice_and_all_are_asked_in_the_end() -> None:
    asked = play(pool(), answers(1), 10_000)
    assert len(set(asked)) == len(asked)
    by_config = np.bincount([config for config, _ in asked], minlength=len(FLATS))
    assert by_config.max() == QUESTIONS
    # What never was on a draw's front has not been asked everything.
    assert by_config.min() < QUESTIONS


def test_what_others_are_giving_is_not_given_and_what_cannot_be_run_is_not_proposed() -> None:
    amounts = answers(2)
    sampler = pool()
    play(sampler, amounts, 20)
    block = sampler.propose(99)
    assert block is not None
    again = sampler.propose(99, busy={block.config: block.questions})
    assert again is not None
    assert again.config != block.config or not {*again.questions} & {*block.questions}
    sampler.exclude(block.config)
    assert all(
        found.config != block.config
        for step in range(100, 140)
        if (found := sampler.propose(step)) is not None
    )
    among = np.zeros(len(FLATS), dtype=bool)
    among[[3, 5]] = True
    assert {found.config for s in range(20) if (found := sampler.propose(s, among=among))} <= {3, 5}


def test_many_configs_are_looked_at_before_the_model_is_asked() -> None:
    asked = play(pool(), answers(3), FIRST_CONFIGS)
    assert len({config for config, _ in asked}) == FIRST_CONFIGS
    assert len(asked) == FIRST_CONFIGS * BLOCK


@pytest.mark.parametrize("seed", range(3))
def test_the_front_is_found_with_half_of_the_questions(seed: int) -> None:
    amounts = answers(seed)
    sampler = pool(seed)
    play(sampler, amounts, len(FLATS) * QUESTIONS // BLOCK // 2)
    values = TRUTH * np.array([-1.0, 1.0, 1.0])
    scaled = (values - values.min(axis=0)) / np.ptp(values, axis=0)
    worst = np.ones(3)
    whole = hypervolume(scaled[non_dominated(scaled)], worst)
    shown = sampler.front()
    assert hypervolume(scaled[shown], worst) / whole > 0.94


def test_only_what_has_answered_enough_is_shown() -> None:
    sampler = pool()
    assert len(sampler.front()) == 0
    amounts = answers(4)
    asked = play(sampler, amounts, 40)
    answered = np.bincount([config for config, _ in asked], minlength=len(FLATS))
    assert len(sampler.front())
    assert (answered[sampler.front()] >= SHOWN_AFTER).all()


def test_what_is_near_the_front_is_not_on_it_and_what_holds_it_is_seen() -> None:
    sampler = pool()
    assert len(sampler.near()) == len(sampler.best()) == 0
    amounts = answers(4)
    play(sampler, amounts, 40)
    front, near, best = sampler.front(), sampler.near(), sampler.best()
    assert not np.isin(near, front).any()
    assert 0 < len(near) <= MOST_NEAR
    assert (sampler.best() == best).all()
    # Far fewer hold nearly as much as all that may be on the front, and what adds most comes first.
    values = TRUTH * np.array([-1.0, 1.0, 1.0])
    scaled = (values - values.min(axis=0)) / np.ptp(values, axis=0)
    worst = np.full(3, 1.5)
    both = hypervolume(scaled[np.concatenate([front, near])], worst)
    assert len(best) < len(front) + len(near)
    assert hypervolume(scaled[best], worst) > 0.85 * both
    halves = [hypervolume(scaled[half], worst) for half in (best[:3], best[-3:])]
    assert halves[0] > halves[1]


def test_estimates_are_nearer_to_the_truth_than_means() -> None:
    amounts = answers(5)
    sampler = pool()
    for config in range(len(FLATS)):
        sampler.observe(config, amounts[config])
    found, own = sampler.estimates(), measured(amounts)
    assert np.abs(np.log(found[:, 1:] / own[:, 1:])).max() < 0.1
    # Others' answers tell more of a config than its own few do alone.
    assert np.abs(found - TRUTH)[:, 0].mean() < 0.8 * np.abs(own - TRUTH)[:, 0].mean()


def test_constraints_steer() -> None:
    amounts = answers(6)
    limit = {1: Condition.parse("<= 0.5")}
    free, bound = pool(), pool(bounds=limit)
    is_allowed = np.median(amounts[:, :, 1], axis=1) <= 0.5
    share = [
        np.mean([is_allowed[config] for config, _ in play(each, amounts, 60)[6 * FIRST_CONFIGS :]])
        for each in (free, bound)
    ]
    assert share[1] > share[0] + 0.2
    assert is_allowed[bound.front()].all()


def test_a_bound_that_nothing_keeps_is_approached() -> None:
    amounts = answers(7)
    sampler = pool(bounds={1: Condition.parse("<= 0.01")})
    asked = play(sampler, amounts, 40)
    assert min(np.median(amounts[config, :, 1]) for config, _ in asked[-60:]) < 0.2


def test_families_begin_at_the_same_question() -> None:
    larger = [[] if place < 7 else _larger(place) for place in range(len(FLATS))]
    sampler = pool(covered_by=larger)
    for place, others in enumerate(larger):
        for other in others:
            assert sampler.begin(place).questions == sampler.begin(other).questions
    assert len({sampler.begin(place).questions[0] for place in range(len(FLATS))}) > 5


def test_a_run_is_given_the_largest_budget_that_is_not_much_dearer() -> None:
    larger = [[] if place < 7 else _larger(place) for place in range(len(FLATS))]
    amounts = answers(8)
    sampler = pool(covered_by=larger)
    first = [config for config, _ in play(sampler, amounts, FIRST_CONFIGS)]
    assert all(not larger[config] for config in first)
    # Steps cost as many times as much here: eight times is too dear, twice is not, whatever the model says of it.
    both = []
    for each in (pool(covered_by=larger), pool()):
        steps = [FLATS[config].get("dear.steps", 8) for config, _ in play(each, amounts, 60)]
        both.append(np.mean(np.array(steps) == 1))
    assert both[0] < both[1] / 2


def test_smaller_budgets_wait_for_what_the_larger_ones_will_say_of_them() -> None:
    larger = [[] if place < 7 else _larger(place) for place in range(len(FLATS))]
    sampler = pool(covered_by=larger)
    last = np.arange(len(FLATS)) >= 7 + 8 * 4  # one number of shots: two families of four budgets
    busy: dict[int, tuple[int, ...]] = {}

    def proposed() -> Block | None:
        free = ~np.isin(np.arange(len(FLATS)), list(busy))
        return sampler.propose(len(busy), among=last & free, busy=busy)

    for _ in range(2):
        block = proposed()
        assert block is not None
        busy[block.config] = block.questions
    assert not any(larger[config] for config in busy)
    assert proposed() is None
    first = next(iter(busy))
    questions = list(busy.pop(first))
    known = np.full((QUESTIONS, 3), np.nan)
    known[questions] = answers(0)[first, questions]
    sampler.observe(first, known)
    assert proposed() is not None


def _larger(place: int) -> list[int]:
    own = FLATS[place]
    return [
        other
        for other, flat in enumerate(FLATS)
        if {**flat, "dear.steps": 0} == {**own, "dear.steps": 0}
        and flat["dear.steps"] > own["dear.steps"]
    ]


def test_near_numbers_are_encoded_alike_and_open_knobs_apart() -> None:
    flats = [{"k": number} for number in (1, 2, 4, 8, 16)] + [{"k": 32, "word": "a"}]
    basis, group = encode(flats)
    assert basis.shape == (6, len(group))
    single = basis[:, group == 1]
    distances = np.linalg.norm(single[0] - single[1:5], axis=1)
    assert (np.diff(distances) > 0).all()


@given(st.lists(st.sampled_from([0, 1, 2.5, True, "1", "x"]), min_size=2, max_size=8))
def test_values_of_any_kind_are_encoded(values: list[Any]) -> None:
    basis, group = encode([{"k": value, "other": place % 2} for place, value in enumerate(values)])
    assert np.isfinite(basis).all()
    assert (group[0], len(basis)) == (0, len(values))
    for one, first in enumerate(values):
        for other, second in enumerate(values):
            if type(first) is type(second) and first == second and one % 2 == other % 2:
                np.testing.assert_allclose(basis[one], basis[other], atol=1e-12)


def test_objectives_that_are_all_equal_or_zero_do_not_stop_it() -> None:
    amounts = answers(8)
    amounts[:, :, 0] = 0.0
    amounts[:, :, 2] = 0.0
    assert len(play(pool(), amounts, 40)) > 200
