import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tuner.errors import SpecError
from tuner.serving import model_name
from tuner.space import Choices
from tuner.space import SearchSpace
from tuner.space import load_space
from workflows.table import workflow_kind

MODELS = ("small", "large")


def space_of(workflows: Mapping[str, Any]) -> SearchSpace:
    content = {"format_version": 1, "name": "s", "workflows": workflows}
    return SearchSpace.model_validate_json(json.dumps(content))


def params(config):
    return tuple(sorted(config.params.items()))


def some_of(values):
    return st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True)


def whole(low, high):
    ends = st.tuples(st.integers(low, high), st.integers(low, high)).map(sorted)
    return st.builds(
        lambda pair, step: {"low": pair[0], "high": pair[1]} | ({"step": step} if step else {}),
        ends,
        st.sampled_from([None, 1, 2, 3]),
    )


def stepped(low, high):
    tenths = st.tuples(st.integers(low, high), st.integers(low, high)).map(sorted)
    return st.builds(
        lambda pair, step: {"low": pair[0] / 10, "high": pair[1] / 10, "step": step},
        tenths,
        st.sampled_from([0.1, 0.2, 0.5]),
    )


KNOBS = {
    "few_shot": some_of([0, 1, 2, 3]) | whole(0, 4),
    "demonstrations": some_of(["fixed", "nearest"]),
    "temperature": some_of([0, 0.3, 0.7]) | stepped(0, 12) | whole(0, 2),
}
MORE = {
    "direct": {},
    "react": {
        "thoughts": some_of([True, False]) | st.booleans(),
        "max_steps": whole(1, 4),
        "draft_model": some_of(["actor", *MODELS]),
    },
}


@st.composite
def knobs(draw, workflow):
    known = KNOBS | MORE[workflow]
    names = draw(st.permutations(sorted(known)))[: draw(st.integers(0, 3))]
    drawn: dict[str, Any] = {}
    for name in names:
        domain = draw(known[name])
        if drawn and draw(st.booleans()):
            domain = (
                domain if isinstance(domain, dict) else {"choices": np.atleast_1d(domain).tolist()}
            )
            on = draw(st.sampled_from(sorted(drawn)))
            wanted = {
                "demonstrations": ["nearest", "!= nearest"],
                "thoughts": [True, "!= true"],
                "draft_model": ["actor", "!= small"],
            }
            domain = domain | {
                "when": {on: draw(st.sampled_from(wanted.get(on, [">= 1", "< 2", 0])))}
            }
        drawn[name] = domain
    return drawn


@st.composite
def spaces(draw):
    names = draw(some_of(["direct", "react"]))
    return space_of({name: draw(knobs(name)) for name in names})


SERVED = {"prefix_cache": [True, False], "slots": [1, 2, 8], "speculative": ["none", "{method: a}"]}


@st.composite
def served(draw):
    """Models, some of which may be served in several ways that have names; a role can then be given to the others only."""
    found = {}
    for model in draw(some_of(MODELS)):
        knobs = draw(st.lists(st.sampled_from(sorted(SERVED)), unique=True, max_size=2))
        found[model] = {knob: Choices(choices=tuple(SERVED[knob])) for knob in knobs}
    return found


@given(spaces(), some_of(MODELS) | served())
@settings(max_examples=200, deadline=None)
def test_the_listed_configs_are_as_many_as_the_size_says_and_all_differ(space, models):
    listed = list(space.configs(models))
    assert len(listed) == space.size(models)
    assert len({config.hash() for config in listed}) == len(listed)


@given(spaces(), some_of(MODELS) | served(), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_what_is_drawn_or_sampled_is_listed(space, models, seed):
    listed = {config.hash() for config in space.configs(models)}
    assert space.draw(models, np.random.default_rng(seed)).hash() in listed
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    assert space.sample(study.ask(), models).hash() in listed


@given(spaces(), some_of(MODELS) | served(), st.randoms())
@settings(max_examples=60, deadline=None)
def test_flat_parameters_lead_back_to_their_config(space, models, random):
    config = random.choice(list(space.configs(models)))
    flat = space.flat(config, models)
    study = optuna.create_study()
    study.enqueue_trial(flat)
    trial = study.ask()
    assert space.sample(trial, models) == config
    assert trial.params == pytest.approx(flat)


@given(spaces(), st.randoms())
@settings(max_examples=60, deadline=None)
def test_every_listed_config_is_one_that_the_workflow_takes_as_it_is(space, random):
    config = random.choice(list(space.configs(["m"])))
    kind = workflow_kind(config.workflow)
    assert kind.params.model_validate(config.params).model_dump() == config.params


@given(spaces(), spaces(), some_of(MODELS) | served(), some_of(MODELS) | served())
@settings(max_examples=60, deadline=None)
def test_a_space_holds_the_configs_that_it_lists_and_no_others(space, other, models, others):
    listed = {config.hash() for config in space.configs(models)}
    assert all(space.holds(config, models) for config in space.configs(models))
    for config in other.configs(others):
        assert space.holds(config, models) == (config.hash() in listed)


@pytest.mark.parametrize(("value", "held"), [(0.1, True), (0.35, True), (1.0, True), (0.05, False)])
def test_a_continuum_holds_what_lies_within_its_ends(value, held):
    space = space_of({"direct": {"temperature": {"low": 0.1, "high": 1.0}}})
    config = space.draw(["m"], np.random.default_rng(1))
    moved = config.model_copy(update={"params": {**config.params, "temperature": value}})
    assert space.holds(moved, ["m"]) == held


@given(spaces(), some_of(MODELS) | served())
@settings(max_examples=50, deadline=None)
def test_defaults_are_of_the_space_one_for_each_workflow_on_each_model(space, models):
    found = space.defaults(models)
    assert [(model_name(c.model), c.workflow) for c in found] == [
        (model, workflow) for model in models for workflow in space.workflows
    ]
    for config in found:
        assert space.holds(config, models)
        params = workflow_kind(config.workflow).params
        usual = {**params().model_dump(), **params.published}
        for knob, domain in space.workflows[config.workflow].items():
            if usual[knob] in (domain.values() or ()):
                assert config.params[knob] == usual[knob]


SPACES = sorted((Path(__file__).resolve().parents[2] / "search_spaces").glob("**/*.yaml"))


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_the_defaults_of_every_search_space_of_the_project_are_among_its_configs(path):
    space = load_space(path)
    for config in space.defaults(MODELS):
        assert space.holds(config, MODELS)


@pytest.mark.parametrize(
    ("workflow", "knobs", "wanted"),
    [
        ("react", {"max_steps": {"low": 1, "high": 9}}, {"max_steps": 7}),
        ("react", {"max_steps": {"low": 1, "high": 4}}, {"max_steps": 4}),
        ("react", {"max_steps": [16, 10, 2]}, {"max_steps": 10}),
        ("react", {"few_shot": {"low": 0, "high": 4}}, {"few_shot": 4}),
        ("cot", {"few_shot": {"low": 0, "high": 8}}, {"few_shot": 6}),
        ("react", {"at_budget": ["answer", "empty"]}, {"at_budget": "empty"}),
        ("react", {"at_budget": ["answer"], "thoughts": False}, {"at_budget": "answer", "thoughts": False}),
        ("react", {"history": ["summary", "window"]}, {"history": "summary"}),
        ("self_consistency", {"temperature": {"low": 0.8, "high": 1.5}}, {"temperature": 0.8}),
        ("self_consistency", {"temperature": {"low": 0.1, "high": 1.5}}, {"temperature": 0.7}),
        ("lats", {"iterations": {"low": 1, "high": 16, "log": True}}, {"iterations": 16}),
        ("direct", {"few_shot": [2, 4], "demonstrations": {"choices": ["nearest", "fixed"], "when": {"few_shot": ">= 1"}}}, {"few_shot": 4, "demonstrations": "fixed"}),
        ("cascade", {"cheap": ["cot", "self_consistency"], "cheap.max_tokens": [48, 128, 256]}, {"cheap": "cot", "cheap.max_tokens": 256}),
        ("cascade", {"cheap": ["direct"], "cheap.max_tokens": [24, 40, 256]}, {"cheap.max_tokens": 40}),
        ("react", {"draft_model": ["large", "actor"]}, {"draft_model": "actor"}),
        ("react", {"draft_model": ["large", "small"]}, {"draft_model": "actor"}),
        ("react", {"draft_model": ["large"]}, {"draft_model": "large"}),
    ],
)  # fmt: skip
def test_a_default_that_the_space_lacks_gives_way_to_what_is_nearest(workflow, knobs, wanted):
    (config,) = space_of({workflow: knobs}).defaults(["small"])
    assert {knob: config.params[knob] for knob in wanted} == wanted


def test_a_default_is_on_the_first_variant_of_a_served_model():
    models = {
        "b": {"prefix_cache": Choices(choices=(False, True)), "slots": Choices(choices=(4, 1))}
    }
    (config,) = space_of({"direct": {}}).defaults(models)
    assert config.model == "b@prefix_cache=false,slots=4"


def test_optuna_sees_flat_names_and_only_what_can_be_chosen():
    space = space_of(
        {
            "react": {"max_steps": {"low": 1, "high": 4}, "thoughts": False},
            "direct": {"few_shot": [0, 2], "max_tokens": {"low": 8, "high": 8}},
        }
    )
    react, direct = (
        next(c for c in space.configs(MODELS) if c.workflow == name) for name in ("react", "direct")
    )
    assert space.flat(react, MODELS) == {
        "workflow": "react",
        "model": "large",
        "react.max_steps": 1,
    }
    assert space.flat(direct, ["m"]) == {"workflow": "direct", "direct.few_shot": 0}


def test_serving_knobs_are_those_of_their_model_and_name_its_variant():
    space = space_of({"direct": {"few_shot": [0, 2]}})
    models = {"a": {}, "b": {"prefix_cache": Choices(choices=(True, False))}}
    found = {(c.model, c.params["few_shot"]): space.flat(c, models) for c in space.configs(models)}
    assert found["a", 2] == {"model": "a", "direct.few_shot": 2}
    assert found["b@prefix_cache=false", 0] == {
        "model": "b",
        "b.prefix_cache": False,
        "direct.few_shot": 0,
    }
    assert len(found) == space.size(models) == 2 * (1 + 2)


def test_variants_given_as_models_are_the_same_configs():
    space = space_of({"react": {"max_steps": [1, 2]}})
    models = {"b": {"prefix_cache": Choices(choices=(True, False))}}
    names = ["b@prefix_cache=true", "b@prefix_cache=false"]
    assert {c.hash() for c in space.configs(models)} == {c.hash() for c in space.configs(names)}


def test_without_choices_what_is_drawn_does_not_depend_on_how_models_are_given():
    space = space_of({"react": {"max_steps": [1, 2, 3]}, "direct": {"few_shot": [0, 2]}})
    there, here = (
        [space.draw(models, rng) for _ in range(9)]
        for models, rng in (
            (models, np.random.default_rng(1)) for models in (MODELS, {name: {} for name in MODELS})
        )
    )
    assert there == here


def test_the_order_of_workflows_and_models_in_the_file_does_not_matter():
    """Optuna refuses a parameter whose choices come in another order than before."""
    knobs = {"direct": {"few_shot": [0, 2]}, "react": {"max_steps": [1, 2]}}
    there = space_of(knobs)
    back = space_of(dict(reversed(knobs.items())))
    study = optuna.create_study()
    for space, models in ((there, ("a", "b")), (back, ("b", "a"))):
        trial = study.ask()
        space.sample(trial, models)
        study.tell(trial, 0.0)
    assert there.fingerprint() == back.fingerprint()


def test_short_forms_are_choices():
    short = space_of({"react": {"thoughts": False, "max_steps": [1, 2]}})
    full = space_of({"react": {"thoughts": {"choices": [False]}, "max_steps": {"choices": [1, 2]}}})
    assert short == full
    assert short.fingerprint() == full.fingerprint()


@pytest.mark.parametrize(
    ("domain", "values"),
    [
        ({"low": 0, "high": 5, "step": 2}, (0, 2, 4)),
        ({"low": 3, "high": 3}, (3,)),
        ({"low": 1, "high": 3, "log": True}, (1, 2, 3)),
        ({"low": 0, "high": 0.3, "step": 0.1}, (0.0, 0.1, 0.2, 0.3)),
        ({"low": 0.5, "high": 1, "step": 0.2}, (0.5, 0.7, 0.9)),
        ({"low": 0.5, "high": 0.5}, (0.5,)),
        ({"low": 0.1, "high": 1}, None),
        ({"low": 0.1, "high": 1, "log": True}, None),
    ],
)
def test_a_range_has_the_values_that_its_steps_reach(domain, values):
    assert (
        space_of({"direct": {"temperature": domain}}).workflows["direct"]["temperature"].values()
        == values
    )


@pytest.mark.parametrize("log", [True, False])
def test_a_continuum_has_no_size_and_is_drawn_within_its_ends(log):
    space = space_of({"direct": {"temperature": {"low": 0.1, "high": 1.5, "log": log}}})
    assert space.size(["m"]) is None
    assert space.configs(["m"]) is None
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for config in (
        space.draw(["m"], np.random.default_rng(1)),
        space.sample(study.ask(), ["m"]),
    ):
        assert 0.1 <= config.params["temperature"] <= 1.5
    assert space.flat(config, ["m"]) == {"direct.temperature": config.params["temperature"]}


def test_a_log_range_is_sampled_by_ratio():
    space = space_of({"direct": {"temperature": {"low": 0.01, "high": 1.0, "log": True}}})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    drawn = [space.sample(study.ask(), ["m"]).params["temperature"] for _ in range(300)]
    assert math.exp(np.mean(np.log(drawn))) == pytest.approx(0.1, rel=0.3)


def test_a_knob_whose_condition_does_not_hold_keeps_its_default():
    when = {"few_shot": ">= 1"}
    space = space_of(
        {"direct": {"few_shot": [0, 2], "demonstrations": {"choices": ["nearest", "fixed"], "when": when}}}
    )  # fmt: skip
    found = {(c.params["few_shot"], c.params["demonstrations"]) for c in space.configs(["m"])}
    assert found == {(0, "fixed"), (2, "nearest"), (2, "fixed")}


def test_a_condition_on_a_knob_that_is_not_open_does_not_hold():
    space = space_of(
        {
            "react": {
                "few_shot": [0, 2],
                "thoughts": {"choices": [False, True], "when": {"few_shot": ">= 1"}},
                "max_steps": {"choices": [1, 2], "when": {"thoughts": True}},
            }
        }
    )
    assert (
        len({params(config) for config in space.configs(["m"])}) == 1 + 1 + 2 == space.size(["m"])
    )


def test_the_fingerprint_changes_with_what_can_be_sampled_and_not_with_the_name():
    text = {"format_version": 1, "name": "a", "workflows": {"direct": {"few_shot": [0, 1]}}}
    same = SearchSpace.model_validate_json(json.dumps(text | {"name": "b"}))
    space = SearchSpace.model_validate_json(json.dumps(text))
    assert space.fingerprint() == same.fingerprint()
    others = ({"direct": {"few_shot": [0, 2]}}, {"cot": {"few_shot": [0, 1]}}, {"direct": {}})
    assert len({space_of(w).fingerprint() for w in others} | {space.fingerprint()}) == 4


@pytest.mark.parametrize(
    ("workflows", "message"),
    [
        ("  reakt: {}", "4: workflows.reakt: unknown workflow 'reakt'; known: direct, cot,"),
        ("  react:\n    steps: [1]", "5: workflows.react.steps: unknown knob 'steps' of react; known: few_shot, demonstrations, temperature, max_steps,"),
        ("  react:\n    max_steps: [1, 65]", "5: workflows.react.max_steps: 65 is outside the workflow's bounds: input should be less than or equal to 64"),
        ("  react:\n    max_steps: {low: 0, high: 3}", "5: workflows.react.max_steps: 0 is outside the workflow's bounds: input should be greater than or equal to 1"),
        ("  react:\n    max_steps: {low: 1, high: 4, step: 0.5}", "5: workflows.react.max_steps: 1.0 is outside the workflow's bounds: input should be a valid integer"),
        ("  react:\n    thoughts: [1]", "5: workflows.react.thoughts: 1 is outside the workflow's bounds: input should be a valid boolean"),
        ("  react:\n    at_budget: guess", "5: workflows.react.at_budget: 'guess' is outside the workflow's bounds: input should be 'empty' or 'answer'"),
        ("  direct:\n    few_shot: {low: 3, high: 1}", "5: workflows.direct.few_shot: low 3 is above high 1"),
        ("  direct:\n    few_shot: {low: 1, high: 3, step: 0}", "5: workflows.direct.few_shot.step: input should be greater than 0, not 0"),
        ("  direct:\n    temperature: {low: 0, high: 1.0, log: true}", "5: workflows.direct.temperature: log needs low above 0 and no step"),
        ("  direct:\n    temperature: {low: 0.1, high: .inf}", "5: workflows.direct.temperature.high: input should be a valid integer or a finite number, not inf"),
        ("  direct:\n    few_shot: {low: 0}", "5: workflows.direct.few_shot.high: is missing"),
        ("  direct:\n    few_shot: {low: 0, high: 2, hi: 3}", "5: workflows.direct.few_shot.hi: unknown key; known: when, low, high, step, log"),
        ("  direct:\n    few_shot: {choice: [0]}", "5: workflows.direct.few_shot.choices: is missing"),
        ("  direct:\n    few_shot: []", "5: workflows.direct.few_shot: tuple should have at least 1 item after validation, not 0"),
        ("  direct:\n    few_shot: [1, 1]", "5: workflows.direct.few_shot: names a value twice: 1, 1"),
        ("  direct:\n    temperature: [0, 0.0]", "5: workflows.direct.temperature: names a value twice: 0, 0.0"),
        ("  direct:\n    few_shot: ~", "5: workflows.direct.few_shot: input should be a valid boolean or a valid integer or a valid number or a valid string, not None"),
        ("  direct: ~", "4: workflows.direct: input should be an object, not None"),
        ("  direct:\n    demonstrations: {choices: [fixed], when: {few_shot: '>= 1'}}\n    few_shot: [0, 1]", "5: workflows.direct.demonstrations.when.few_shot: is not a knob above demonstrations; above it: none"),
        ("  direct:\n    few_shot: [0, 1]\n    demonstrations: {choices: [fixed], when: {demonstrations: fixed}}", "6: workflows.direct.demonstrations.when.demonstrations: is not a knob above demonstrations; above it: few_shot"),
        ("  direct:\n    few_shot: [0, 1]\n    demonstrations: {choices: [fixed], when: {few_shot: '=> 1'}}", "6: workflows.direct.demonstrations.when.few_shot: '=> 1' is no comparison; write one like '>= 1'"),
        ("  direct:\n    few_shot: [0, 1]\n    demonstrations: {choices: [fixed], when: {few_shot: '> 1'}}", "6: workflows.direct.demonstrations.when.few_shot: no value of few_shot is > 1; its values: 0, 1"),
        ("  {}", "3: workflows: dictionary should have at least 1 item after validation, not 0"),
    ],
)  # fmt: skip
def test_a_space_that_cannot_be_sampled_is_refused_with_its_place(tmp_path, workflows, message):
    path = tmp_path / "space.yaml"
    path.write_text(f"format_version: 1\nname: s\nworkflows:\n{workflows}\n")
    with pytest.raises(SpecError) as caught:
        load_space(path)
    assert str(caught.value).startswith(f"{path}:{message}")


def test_another_format_version_is_refused(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("format_version: 2\nname: s\nworkflows: {direct: {}}\n")
    with pytest.raises(SpecError, match=r":1: format_version: input should be 1, not 2"):
        load_space(path)


@pytest.mark.parametrize(
    ("workflow", "message"),
    [
        ("cascade: {cheap: magic}", "workflows.cascade.cheap: unknown workflow 'magic'; known: direct"),
        ("cascade: {cheap.max_steps: 3}", "workflows.cascade.cheap.max_steps: unknown knob 'max_steps' of direct; known: few_shot"),
        ("cascade: {cheap: [direct, react], cheap.max_steps: 3}", "workflows.cascade.cheap.max_steps: unknown knob 'max_steps' of direct"),
        ("cascade: {cheap: react, cheap.max_steps: [3, 99]}", "workflows.cascade.cheap.max_steps: 99 is outside the workflow's bounds"),
        ("cascade: {dear.max_steps: 3}", "workflows.cascade.dear.max_steps: unknown knob 'dear.max_steps' of cascade; known: cheap, costly"),
        ("nowhere_to_be_found:answer: {}", "workflows.nowhere_to_be_found:answer: "),
    ],
)  # fmt: skip
def test_a_knob_within_is_checked_against_the_workflow_within(tmp_path, workflow, message):
    path = tmp_path / "space.yaml"
    path.write_text(f"format_version: 1\nname: s\nworkflows:\n  {workflow}\n")
    with pytest.raises(SpecError) as caught:
        load_space(path)
    assert str(caught.value).startswith(f"{path}:4: {message}")


def test_a_workflow_within_a_workflow_has_its_knobs_and_conditions():
    space = space_of(
        {
            "cascade": {
                "cheap": ["direct", "cot"],
                "costly": "react",
                "cheap.max_tokens": {"choices": [20, 40], "when": {"cheap": "direct"}},
                "costly.max_steps": [2, 4],
                "threshold": [0.5, 1.0],
            }
        }
    )
    listed = list(space.configs(["m"]))
    assert len(listed) == space.size(["m"]) == (2 + 1) * 2 * 2
    assert {c.params["cheap.max_tokens"] for c in listed} == {20, 40, 256}
    for config in listed:
        flat = space.flat(config, ["m"])
        study = optuna.create_study()
        study.enqueue_trial(flat)
        assert space.sample(study.ask(), ["m"]) == config


def test_a_role_that_the_configs_own_model_plays_is_the_actors():
    space = space_of({"react": {"draft_model": ["small", "large"]}})
    found = {(c.model, c.params["draft_model"]) for c in space.configs(MODELS)}
    assert found == {
        ("small", "actor"),
        ("small", "large"),
        ("large", "small"),
        ("large", "actor"),
    }
    assert {c.models() for c in space.configs(MODELS)} == {
        ("small",),
        ("small", "large"),
        ("large", "small"),
        ("large",),
    }
