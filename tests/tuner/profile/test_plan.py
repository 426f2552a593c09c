"""Which configs a profile measures, and which it derives."""

import pytest

from tuner.profile.plan import WHOLE
from tuner.profile.plan import budgets
from tuner.profile.plan import line
from tuner.profile.plan import make_plan


def test_a_small_space_is_measured_whole_at_its_largest_budgets(study):
    loaded = study()
    plan = make_plan(loaded.space, loaded.models)
    assert plan.whole
    assert len(plan.configs) == 2 * (3 + 1 + 2 + 1 + 2)
    assert {c.params["max_steps"] for c in plan.configs if c.workflow == "react"} == {4}
    every = {config.hash() for config in loaded.space.configs(loaded.models)}
    assert {config.hash() for config in plan.configs} <= every


def test_configs_come_by_model_then_by_workflow_as_the_files_list_them(study):
    loaded = study()
    plan = make_plan(loaded.space, loaded.models)
    listed = [(config.model, config.workflow) for config in plan.configs]
    order = {name: place for place, name in enumerate(loaded.space.workflows)}
    assert listed == sorted(listed, key=lambda each: ("false" in each[0], order[each[1]]))


def test_of_a_large_space_the_centres_and_one_knob_at_a_time(study):
    loaded = study(
        (
            "react: {few_shot: [0, 1],",
            "react: {few_shot: {low: 0, high: 8}, max_tokens: {low: 20, high: 99},",
        )
    )
    plan = make_plan(loaded.space, loaded.models)
    assert not plan.whole
    react = [c.params for c in plan.configs if c.workflow == "react" and "true" in c.model]
    assert [p["few_shot"] for p in react] == [4, 0, 2, 3, 5, 6, 8]
    assert {p["max_tokens"] for p in react} == {60}
    assert len({config.hash() for config in plan.configs}) == len(plan.configs) <= WHOLE
    assert str(WHOLE) in plan.rule()


def test_a_centre_has_its_largest_budget_and_the_middle_of_its_numbers(study):
    loaded = study(
        ("children: [1, 2]", "children: [1, 2, 4, 8, 16]"), ("iterations: 4", "iterations: [64, 4]")
    )
    centre = make_plan(loaded.space, loaded.models).centres["lats"]
    assert (centre.params["children"], centre.params["iterations"]) == (4, 64)
    assert centre.model == "m@prefix_cache=true"


def test_a_line_changes_one_knob(study):
    loaded = study()
    centre = make_plan(loaded.space, loaded.models).centres["direct"]
    shots = line(loaded.space, loaded.models, centre, "few_shot")
    assert [config.params["few_shot"] for config in shots] == [0, 1, 2]
    models = line(loaded.space, loaded.models, centre, "model")
    assert [config.model for config in models] == list(loaded.variants)
    assert all(config.params == centre.params for config in models)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("[1, 2, 4]", (1, 2)),
        ("5", (1, 2, 3, 4)),
        ("40", (1, 2, 3, 4, 5, 6, 7, 8, 16, 32)),
        ("9", (1, 2, 3, 4, 5, 6, 7, 8)),
        ("1", ()),
    ],
)
def test_budgets_are_those_of_the_space_or_each_and_then_twice_as_many(study, steps, expected):
    loaded = study(("max_steps: [1, 2, 4]", f"max_steps: {steps}"))
    centre = make_plan(loaded.space, loaded.models).centres["react"]
    assert budgets(loaded.space, centre) == expected


def test_a_workflow_without_rounds_has_no_budgets(study):
    loaded = study()
    assert budgets(loaded.space, make_plan(loaded.space, loaded.models).centres["cot"]) == ()
