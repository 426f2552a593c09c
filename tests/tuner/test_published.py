"""What ships with us of others' figures: each has its source, its year and believable numbers."""

import pytest

from tuner.errors import UserError
from tuner.published import load_comparisons
from tuner.published import load_electricity
from tuner.published import load_paper
from tuner.tasks import TASKS
from workflows import WORKFLOWS

PAPER = load_paper("kim2025")


def test_grids_have_a_source_and_a_year() -> None:
    electricity = load_electricity()
    assert "Ember" in electricity.grid_source
    assert {"world", "us", "europe"} <= set(electricity.grid)
    for grid in electricity.grid.values():
        assert 10 < grid.g_per_kwh < 1000
        assert grid.year >= 2023
    assert 0.01 < electricity.price.usd_per_kwh < 1
    assert electricity.price.source


def test_comparisons_have_a_source_and_a_year() -> None:
    for each in load_comparisons().values():
        assert each.kwh > 0
        assert each.year > 1990
        assert len(each.source) > 20


@pytest.mark.parametrize(
    "number", ["4", "5", "6", "8", "9", "11", "12", "13a", "13b", "14", "15", "16", "17"]
)
def test_every_figure_is_in_our_words_and_units(number: str) -> None:
    rows = PAPER.figures[number].rows
    assert rows
    for row in rows:
        assert row.get("task", "chat") in TASKS
        assert row.get("workflow", "cot") in WORKFLOWS
        for name, value in row.items():
            if name.endswith(("_share", "accuracy", "utilisation")):
                assert 0 <= value <= 1, row
            elif not isinstance(value, str):
                assert value >= 0, row


def test_the_papers_own_statements_hold_in_its_rows() -> None:
    rows = PAPER.table3
    large, small = rows["llama-3.1-70b/reflexion"], rows["llama-3.1-70b/sharegpt"]
    assert large.energy_wh / small.energy_wh == pytest.approx(136.6, abs=0.1)
    devices = [row["prefill_share"] + row["decode_share"] + row["idle_share"] for row in PAPER.figures["6"].rows]  # fmt: skip
    assert devices == pytest.approx([1.0] * len(devices), abs=0.02)


def test_another_paper_is_refused() -> None:
    with pytest.raises(UserError, match="no figures of 'kim2024' are known") as refused:
        load_paper("kim2024")
    assert refused.value.hint == "known: kim2025"
