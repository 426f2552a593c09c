"""Tables from given records, in closed form."""

from dataclasses import replace

import pytest

from tuner.profile.figures import FIGURES


def row_of(profile, figure, workflow, *, cached=True, **keys):
    model = f"m@prefix_cache={'true' if cached else 'false'}"
    centre = profile.shown[workflow].config.params
    (found,) = [
        row
        for row in profile.table(figure).rows
        if row.of.workflow == workflow and row.of.model == model
        if keys.items() <= row.keys.items()
        if keys or row.of.config.params == centre
    ]
    return found


def values(row):
    return {name: value.value for name, value in row.values.items()}


def test_every_figure_of_the_paper_that_a_study_can_show_is_there(profiled):
    profile = profiled(at_rates=(0.1,))
    assert [table.figure for table in profile.tables] == list(FIGURES)
    for table in profile.tables:
        assert table.rows or table.notes
        for row in table.rows:
            assert row.values.keys() == {column.name for column in table.columns}
            assert all(
                (value.value is None) == (value.why is not None) for value in row.values.values()
            )
            assert row.n > 0


def test_calls_per_request(profiled):
    assert values(row_of(profiled(), "4", "react")) == {"llm_calls": 3, "tool_calls": 2}


def test_where_latency_goes(profiled):
    # Two questions: 3 calls of 1 s, 2 tools of 0.5 s, and the second takes 0.25 s of its own.
    found = values(row_of(profiled(), "5", "react"))
    assert found == pytest.approx(
        {
            "latency_mean_s": 4.125,
            "llm_share": 6 / 8.25,
            "overlap_share": 0,
            "tool_share": 2 / 8.25,
            "other_share": 0.25 / 8.25,
        }
    )


def test_what_the_device_does(profiled):
    # Half of each call of a second is prefill, and the window is 8.25 s.
    found = values(row_of(profiled(), "6", "react"))
    assert found == pytest.approx(
        {"prefill_share": 3 / 8.25, "decode_share": 3 / 8.25, "idle_share": 2.25 / 8.25}
    )


def test_how_latency_is_spread_says_which_quantiles_so_few_questions_cannot_tell(profiled):
    few = row_of(profiled(), "7", "cot").values
    assert few["latency_p50_s"].value == pytest.approx(1.125)
    assert few["latency_p95_s"].value is None
    assert few["latency_p99_s"].why == "n = 2, and it takes 100"
    many = row_of(profiled(n=100), "7", "cot").values
    assert many["latency_p99_s"].value is not None
    assert many["latency_p5_s"].value < many["latency_p95_s"].value


def test_tokens_by_role_add_up_to_the_calls(profiled):
    row = row_of(profiled(), "8", "cot")
    assert sum(values(row).values()) == pytest.approx(25)
    assert row.values["output_tokens"].value == 5
    assert row.values["question_tokens"].value > 0
    assert (row.n, profiled().table("8").counts) == (2, "calls")


def test_what_the_prefix_cache_gains(profiled):
    profile = profiled()
    kept, not_kept = (row_of(profile, "9", "react", cached=cached) for cached in (True, False))
    assert kept.keys == {"prefix_cache": True}
    assert values(kept) == pytest.approx(
        {
            "prefill_s": 0.5,
            "decode_s": 0.5,
            "call_s": 1,
            "prefix_hit_share": 0.5,
            "prefill_gain": 3,
            "call_gain": 2,
        }
    )
    assert (not_kept.values["prefill_s"].value, not_kept.values["prefix_hit_share"].value) == (
        1.5,
        0,
    )
    assert not_kept.values["call_gain"].value is None


def test_with_one_kind_of_server_the_note_says_how_to_have_both(profiled):
    profile = profiled(("prefix_cache: [true, false]", "prefix_cache: true"))
    assert any("prefix_cache: [true, false]" in note for note in profile.table("9").notes)
    assert row_of_only(profile, "9", "react").values["call_gain"].value is None


def row_of_only(profile, figure, workflow):
    return next(row for row in profile.table(figure).rows if row.of.workflow == workflow)


def test_memory_is_the_servers_own_word_or_missing_with_a_reason(profiled):
    assert "not read" in row_of(profiled(), "12", "react").values["kv_max_bytes"].why

    def with_server(each):
        said = {"kv_bytes_mean": 1e6, "kv_bytes_max": 3e6, "kv_source": "analytic"}
        return replace(each, servers={each.model: said})

    row = row_of(profiled(change=with_server), "12", "react")
    assert values(row) == {"kv_mean_bytes": 1e6, "kv_max_bytes": 3e6}
    assert row.source == "analytic"


def test_accuracy_over_latency_is_a_share_of_the_best(profiled):
    table = profiled().table("13")
    found = {id(row): row.values["accuracy_per_latency"].value for row in table.rows}
    assert max(found.values()) == 1
    best = next(row for row in table.rows if found[id(row)] == 1)
    assert best.of.workflow in ("direct", "cot")
    react = row_of(profiled(), "13", "react")
    assert react.values["accuracy_per_latency"].value == pytest.approx(1.125 / 4.125)
    assert any(row.of.derived for row in table.rows)


def test_budgets_come_from_checkpoints(profiled):
    # Of 4 steps, step b ends at b/4 of 4 s; the first question is right from step 2 on.
    profile = profiled()
    rows = [row_of(profile, "14", "react", budget=budget) for budget in (1, 2, 4)]
    assert [row.values["accuracy"].value for row in rows] == [0, 0.5, 0.5]
    assert [row.values["latency_mean_s"].value for row in rows] == pytest.approx([1, 2, 4.125])
    assert [row.of.derived for row in rows] == [True, True, False]
    assert [row.of.config.params["max_steps"] for row in rows] == [1, 2, 4]
    watts = [
        3600 * row.values["energy_wh"].value / row.values["latency_mean_s"].value for row in rows
    ]
    # All calls draw 10 W; what was drawn in the 0.25 s that nobody used is spread over the 8.25 s.
    assert watts == pytest.approx([10 + 2.5 / 8.25, 10 + 2.5 / 8.25, 10])


def test_an_answer_that_was_never_asked_for_leaves_accuracy_unknown_and_latency_known(profiled):
    def silent(each):
        runs = tuple(
            replace(run, checkpoints=tuple(replace(c, answer=None) for c in run.checkpoints))
            for run in each.runs
        )
        return replace(each, runs=runs)

    row = row_of(profiled(change=silent), "14", "react", budget=1)
    assert row.values["accuracy"].value is None
    assert "2 of 2 answers" in row.values["accuracy"].why
    assert row.values["latency_mean_s"].value == pytest.approx(1)


def test_demonstrations(profiled):
    rows = [row for row in profiled().table("15").rows if row.of.workflow == "direct"]
    assert [row.keys["few_shot"] for row in rows] == [0, 1, 2] * 2


def test_turns_and_branches(profiled):
    rows = profiled().table("16").rows
    found = {
        (row.of.workflow, row.keys["scaling"], row.keys["knob"], row.keys["value"]) for row in rows
    }
    assert found == {
        *(("reflexion", "sequential", "max_trials", n) for n in (1, 2, 3)),
        *(("lats", "sequential", "iterations", n) for n in (1, 2, 3, 4)),
        *(("lats", "parallel", "children", n) for n in (1, 2)),
    }
    assert all("(oracle)" in row.of.label for row in rows if row.of.workflow == "reflexion")


def test_one_model_has_no_sizes_and_two_have(profiled):
    assert "one model" in profiled().table("17").notes[0]
    two = profiled(
        ("prefix_cache: [true, false]}", "}\n  big: {serve: llama.cpp, weights: big.gguf}")
    )
    found = {(row.of.workflow, row.of.model) for row in two.table("17").rows}
    assert found == {(w, m) for w in two.shown for m in ("m", "big")}
    assert row_of_only(two, "17", "react").values["tokens_total"].value is not None


def test_energy_of_a_query_against_a_single_turn(profiled):
    profile = profiled()
    row = row_of(profile, "III", "react")
    # 10 W for 4.125 s, and 1.125 s for the single turn.
    assert row.values["energy_wh"].value == pytest.approx(41.25 / 3600)
    assert row.values["energy_ratio"].value == pytest.approx(4.125 / 1.125)
    assert row.source == "nvml-counter"
    assert "direct" in profile.table("III").notes[0]


def test_without_direct_the_single_turn_is_cot_and_without_both_there_is_none(profiled):
    profile = profiled(("  direct: {few_shot: [0, 1, 2]}\n", ""))
    assert "cot" in profile.table("III").notes[0]
    none = profiled(("  direct: {few_shot: [0, 1, 2]}\n  cot: {}\n", ""))
    assert row_of_only(none, "III", "react").values["energy_ratio"].why == (
        "there is no single turn to compare with"
    )


def test_without_a_meter_there_is_no_energy_and_it_says_why(profiled):
    def unmetered(each):
        queries = tuple(replace(query, energy_wh=None) for query in each.queries)
        return replace(each, queries=queries, source="none", problem="no energy is metered")

    value = row_of(profiled(change=unmetered), "III", "react").values["energy_wh"]
    assert (value.value, value.why) == (None, "no energy is metered")


def test_a_config_that_failed_is_a_row_that_says_so(profiled):
    def failing(each):
        if each.workflow != "cot":
            return each
        return replace(each, queries=(), runs=(), problem="2 of 2 examples failed")

    profile = profiled(change=failing)
    row = row_of_only(profile, "4", "cot")
    assert row.n == 0
    assert row.values["llm_calls"].why == "2 of 2 examples failed"
    assert "cot" not in profile.shown


def test_rates_have_rows_where_they_were_asked_for(profiled):
    assert "rates" in profiled().table("11").notes[0]
    rows = profiled(at_rates=(0.1, 0.2)).table("11").rows
    assert {row.keys["rate_qps"] for row in rows} == {0.1, 0.2}
    assert {row.keys["prefix_cache"] for row in rows} == {True, False}
