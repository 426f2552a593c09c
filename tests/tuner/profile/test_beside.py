"""A profile beside the paper's figures: every figure, row by row."""

import pytest

from tuner.errors import UserError
from tuner.profile.beside import compare
from tuner.profile.beside import lines
from tuner.profile.figures import FIGURES
from tuner.published import load_paper

READ_OFF = [figure for figure in FIGURES if figure != "7"]
"""Figure 7 shows distributions without numbers."""


@pytest.fixture(scope="module")
def comparison(profiled):
    return compare(profiled(at_rates=(0.1, 0.2)), "kim2025")


def pair(pairs, workflow, quantity, **keys):
    (found,) = [
        each
        for each in pairs
        if (each.workflow, each.column.name) == (workflow, quantity)
        and keys.items() <= each.keys.items()
    ]
    return found


@pytest.mark.parametrize("figure", READ_OFF)
def test_every_figure_has_rows_of_the_papers(comparison, figure):
    pairs = comparison.figures[figure]
    assert any(each.paper is not None for each in pairs)
    for each in pairs:
        known = each.here.value is not None and bool(each.paper)
        assert (each.ratio is not None) == known
        if known:
            assert each.ratio == pytest.approx(each.here.value / each.paper)


def test_a_figure_without_numbers_in_the_paper_has_no_rows(comparison):
    assert comparison.figures.keys() == FIGURES.keys()
    assert comparison.figures["7"] == ()


def test_another_task_stands_beside_hotpotqa_and_the_papers_own_beside_themselves(
    profiled, comparison
):
    assert comparison.task == "hotpotqa"
    from dataclasses import replace

    shop = compare(replace(profiled(), task="shop"), "kim2025")
    assert shop.task == "shop"
    assert pair(shop.figures["4"], "lats", "llm_calls").paper == 178.99


def test_calls_row_by_row(comparison):
    calls = comparison.figures["4"]
    found = pair(calls, "react", "llm_calls")
    assert (found.here.value, found.paper, found.ratio) == (3, 6.21, 3 / 6.21)
    absent = pair(calls, "llmcompiler", "tool_calls")
    assert (absent.here.value, absent.here.why, absent.paper) == (None, "not measured here", 7.82)
    ours = pair(calls, "direct", "llm_calls")
    assert (ours.here.value, ours.paper, ours.ratio) == (1, None, None)


def test_prefix_caching_is_compared_with_and_without(comparison):
    kept, not_kept = (
        pair(comparison.figures["9"], "react", "call_s", prefix_cache=cached)
        for cached in (True, False)
    )
    assert (kept.here.value, not_kept.here.value) == (1, 2)
    assert not_kept.paper == 0.767


def test_memory_is_compared_in_bytes(comparison):
    assert pair(comparison.figures["12"], "react", "kv_mean_bytes", prefix_cache=True).paper == (
        pytest.approx(0.276e9)
    )


def test_budgets_and_demonstrations_are_matched_by_value(comparison):
    budget = pair(comparison.figures["14"], "react", "latency_mean_s", budget=4)
    assert (budget.here.value, budget.paper) == (pytest.approx(4.125), 5.83)
    assert pair(comparison.figures["14"], "react", "accuracy", budget=25).here.value is None
    shots = pair(comparison.figures["15"], "react", "accuracy", few_shot=1)
    assert (shots.here.value, shots.paper) == (0.5, 0.511)


def test_reflections_are_trials_but_one_and_the_papers_points_are_averaged(comparison):
    rows = comparison.figures["16"]
    paper = load_paper("kim2025").figures["16"].rows
    two = [row["accuracy"] for row in paper if row.get("reflections") == 2]
    found = pair(rows, "reflexion", "accuracy", knob="max_trials", value=3)
    assert found.paper == pytest.approx(sum(two) / len(two))
    assert found.here.value == 0.5
    assert pair(rows, "lats", "accuracy", knob="children", value=2).ratio is not None


def test_energy_stands_beside_both_of_the_papers_models(comparison):
    rows = comparison.figures["III"]
    large = pair(rows, "lats", "energy_ratio", **{"paper model": "llama-3.1-70b"})
    assert large.paper == pytest.approx(158.48 / 2.55)
    single = pair(rows, "direct", "energy_wh", **{"paper model": "llama-3.1-8b"})
    assert (single.paper, single.here.value) == (0.32, pytest.approx(11.25 / 3600))


def test_ratios_that_travel_have_a_row_a_workflow(comparison):
    ratios = comparison.ratios
    calls = pair(ratios, "react", "llm_calls_ratio")
    assert (calls.here.value, calls.paper) == (3, pytest.approx(6.21 / 0.99))
    latency = pair(ratios, "react", "latency_mean_s_ratio")
    assert latency.here.value == pytest.approx(4.125 / 1.125)
    energy = pair(ratios, "reflexion", "energy_ratio_llama-3.1-8b")
    assert energy.paper == pytest.approx(41.53 / 0.32)
    assert energy.here.value is not None
    idle = pair(ratios, "react", "idle_share")
    assert (idle.here.value, idle.paper) == (pytest.approx(2.25 / 8.25), 0.493)
    gain = pair(ratios, "react", "prefill_gain")
    assert (gain.here.value, gain.paper) == (pytest.approx(3), pytest.approx(0.136 / 0.057))
    assert pair(ratios, "react", "call_gain").here.value == pytest.approx(2)
    workflows = [line.workflow for line in lines(ratios)]
    assert len(workflows) == len(set(workflows)) == 6


def test_without_cot_nothing_is_held_against_it(profiled):
    found = compare(profiled(("  cot: {}\n", "")), "kim2025")
    calls = pair(found.ratios, "react", "llm_calls_ratio")
    assert (calls.here.value, calls.here.why) == (None, "the study has no cot")
    assert calls.paper is not None


def test_a_paper_that_nobody_knows_is_refused(profiled):
    with pytest.raises(UserError, match="kim2026") as refused:
        compare(profiled(), "kim2026")
    assert "kim2025" in refused.value.hint
