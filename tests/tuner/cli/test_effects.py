"""`tuner effects`: tables for people, JSON for programs."""

import json

import pytest


@pytest.fixture
def path(keep, found, tmp_path):
    """A study of eight configs: more steps are slower and rarely better, demonstrations help."""
    trials = [found("direct", {"few_shot": shots}, search=_rows(shots, 1)) for shots in (0, 2)]
    trials += [found("react", {"max_steps": n}, search=_rows(1, 2 * n)) for n in range(1, 7)]
    keep(*trials)
    return tmp_path / "study.yaml"


def _rows(right, seconds):
    return [(float(n < right), seconds, 10.0 * seconds) for n in range(4)]


def test_a_table_an_objective_with_the_best_and_the_worst_value_of_each_knob(tuner, path):
    ended = tuner("effects", path)
    assert ended.code == 0
    titles = [line for line in ended.out.splitlines() if "the average over" in line]
    assert [title.split(",")[0] for title in titles] == ["accuracy", "latency_p50_s", "energy_wh"]
    assert "percentage points from" in titles[0]
    assert "× the average" in titles[1]
    assert "(8 configs, 32 answers)" in titles[2]
    (row,) = (line for line in ended.out.splitlines() if line.strip().startswith("direct.few_shot") and "×" not in line)  # fmt: skip
    assert row.index(" 2 (1): +") < row.index(" 0 (1): -")


def test_json_has_every_value_with_its_interval_and_what_is_behind_it(tuner, path):
    ended = tuner("effects", path, "--json")
    content = json.loads(ended.out)
    assert content["study"] == "kept"
    latency = content["objectives"][1]
    assert (latency["objective"], latency["scale"]) == ("latency_p50_s", "ratio")
    (steps,) = (each for each in latency["knobs"] if each["knob"] == "react.max_steps")
    assert [each["value"] for each in steps["values"]] == [1, 2, 3, 4, 5, 6]
    for each in steps["values"]:
        low, high = each["interval"]
        assert low <= each["effect"] <= high
        assert (each["configs"], each["answers"]) == (1, 4)
    assert 0 <= steps["importance"] <= 1


def test_objectives_in_which_nothing_differs_are_said_to_be_so(tuner, keep, found, tmp_path):
    keep(*(found("react", {"max_steps": n}, search=_rows(1, 2)) for n in range(1, 7)),
         *(found("direct", {"few_shot": n}, search=_rows(1, 2)) for n in (0, 2)))  # fmt: skip
    out = tuner("effects", tmp_path / "study.yaml").out
    assert "latency_p50_s: 8 configs do not differ in it" in out


def test_too_few_configs_are_refused(tuner, keep, found, tmp_path):
    keep(found("direct", {}, search=_rows(1, 2)))
    ended = tuner("effects", tmp_path / "study.yaml")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: evaluated configs: 1; fewer than 8")
