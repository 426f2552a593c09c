"""`tuner forecast` on an exported file, a trial and a published row, and what it refuses."""

import json

import pytest
import yaml


@pytest.fixture
def path(keep, found, tmp_path):
    """A study of two trials, one frugal and confirmed, one lavish, and one whose meter failed."""
    frugal = [(1, 2, 3.6), (0, 2, 7.2), (1, 2, 3.6), (1, 2, 7.2)]
    keep(
        found("direct", {"few_shot": 2}, search=frugal, holdout=frugal),
        found("react", {"max_steps": 3}, search=[(1, 9, 36.0), (0, 9, 72.0)] * 2),
        found("react", {"max_steps": 4}, search=[(0, 9, None)] * 4),
    )
    return tmp_path / "study.yaml"


@pytest.fixture
def best(tuner, path, tmp_path):
    out = tmp_path / "best.yaml"
    assert tuner("export", path, "--rule", "min-energy", "--out", out).code == 0
    return out


@pytest.fixture
def said(tuner):
    def call(*arguments):
        ended = tuner("forecast", *arguments, "--json")
        assert ended.code == 0, ended
        return json.loads(ended.out)

    return call


KEYS = ["queries_per_day", "pue", "grid", "price", "measured", "forecast", "comparisons", "baseline", "saved"]  # fmt: skip


def test_an_exported_file(tuner, said, best):
    content = said(best, "--queries-per-day", 24e6, "--pue", 1.5, "--grid", 100, "--price", 0.2)
    assert list(content) == KEYS
    assert content["measured"]["energy_wh"]["value"] == pytest.approx(0.0015)
    assert content["measured"]["source"] == "cpu-estimate"
    assert content["measured"]["load"] == "1 at a time"
    forecast = content["forecast"]
    assert forecast["power_w"]["value"] == pytest.approx(2250)
    low, high = forecast["power_w"]["interval"]
    assert low < 2250 < high
    assert forecast["energy_kwh"]["value"] == pytest.approx(2.25 * 8760)
    assert forecast["carbon_kg"]["value"] == pytest.approx(2.25 * 876)
    assert forecast["electricity_usd"]["value"] == pytest.approx(2.25 * 1752)
    assert (forecast["tokens_usd"], forecast["gpus"]) == (None, None)
    assert forecast["unknown"] == "its meter names no GPUs"
    assert (content["baseline"], content["saved"]) == (None, None)
    out = tuner("forecast", best, "--queries-per-day", 24e6, "--pue", 1.5).out
    assert "2.25 kW [" in out
    assert "cpu-estimate" in out
    assert "1 at a time" in out
    assert "473 g CO2e/kWh, the world, 2024 (Ember" in out


def test_a_trial_against_another_and_against_a_paper(tuner, said, path):
    content = said(path, "--trial", 0, "--queries-per-day", 1000, "--baseline", 1)
    assert content["measured"]["basis"] == "4 holdout questions"
    assert content["baseline"]["measured"]["basis"] == "4 search questions"
    assert content["saved"]["energy_kwh"]["value"] == pytest.approx(0.0135 * 365)
    low, high = content["saved"]["energy_kwh"]["interval"]
    assert 0 < low < 0.0135 * 365 < high
    assert content["saved"]["waiting_h"] == pytest.approx(7 * 365 / 3.6)
    assert content["saved"]["caveats"] == []
    out = tuner(
        "forecast", path, "--trial", 0, "--queries-per-day", 1000,
        "--baseline", "kim2025:llama-3.1-8b/sharegpt",
    ).out  # fmt: skip
    assert "saved" in out
    assert "the energy's source of the two differs: cpu-estimate and published" in out


def test_a_published_row(tuner, said):
    row = "kim2025:llama-3.1-70b/reflexion"
    content = said(row, "--queries-per-day", 13.7e9)
    assert content["forecast"]["power_w"] == {"value": pytest.approx(198.884e9, rel=1e-5), "interval": None}  # fmt: skip
    out = tuner("forecast", row, "--queries-per-day", 13.7e9, "--grid", "us").out
    assert "198.9 GW" in out
    assert "not stated" in out
    assert "384 g CO2e/kWh, the United States, 2024" in out
    assert "nuclear reactors of the United States (U.S. Energy Information" in out
    assert f"{row}: its throughput was not measured." in out


def test_an_export_against_an_export(said, best):
    content = said(best, "--queries-per-day", 1000, "--baseline", best)
    assert content["saved"]["energy_kwh"]["value"] == 0


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["kim2025:gpt"], "kim2025 has no row 'gpt'\n", "one of: kim2025:llama-3.1-8b/sharegpt, "),
        (["kim2024:gpt"], "no figures of 'kim2024' are known\n", "known: kim2025"),
        (["STUDY"], "study.yaml is a study: which of its trials?", "--trial TRIAL"),
        (["STUDY", "--trial", "9"], "there is no trial 9\n", "they go from 0 to 2"),
        (["STUDY", "--trial", "0", "--baseline", "9"], "there is no trial 9", None),
        (["STUDY", "--trial", "2"], "its energy was not measured (source: cpu-estimate): the counter was lost", "meter"),
        (["BEST", "--trial", "0"], "best.yaml", None),
        (["none.yaml"], "none.yaml: cannot be read", None),
        (["BEST", "--baseline", "3"], "3: cannot be read", None),
        (["BEST", "--grid", "mars"], "--grid: no region 'mars'; known: world, ", "--grid 100"),
        (["BEST", "--grid", "-5"], "grid_g_per_kwh: -5.0 is not a number of 0 or more", None),
        (["BEST", "--pue", "0.9"], "pue: 0.9 is not a number of 1 or more", None),
        (["BEST", "--price", "nan"], "price_usd_per_kwh: nan is not", None),
        (["BEST", "--queries-per-day", "-1"], "queries_per_day: -1.0 is not", None),
    ],
)  # fmt: skip
def test_mistakes(tuner, path, best, arguments, message, hint):
    places = {"STUDY": path, "BEST": best}
    ended = tuner("forecast", "--queries-per-day", 10, *(places.get(text, text) for text in arguments))  # fmt: skip
    assert (ended.code, ended.out) == (2, ""), ended
    assert message in ended.err
    assert "Traceback" not in ended.err
    assert hint is None or hint in ended.err.partition("\nhint: ")[2]


def test_an_export_of_an_earlier_version(tuner, best):
    content = yaml.safe_load(best.read_text())
    content["provenance"]["measured"]["holdout"].pop("costs")
    best.write_text(yaml.safe_dump(content))
    ended = tuner("forecast", best, "--queries-per-day", 10)
    assert (ended.code, ended.out) == (2, "")
    assert "provenance.measured.holdout.costs: is missing" in ended.err
    assert "\nhint: export it again: tuner export STUDY --rule min-energy" in ended.err


def test_a_config_that_was_not_metered(tuner, best):
    content = yaml.safe_load(best.read_text())
    energy = content["provenance"]["measured"]["holdout"]["costs"]["energy"]
    energy.update(source="none", gross_wh=None, interval_wh=None, problem="no meter")
    best.write_text(yaml.safe_dump(content))
    ended = tuner("forecast", best, "--queries-per-day", 10)
    assert (ended.code, ended.out) == (2, "")
    assert "its energy was not measured (source: none): no meter" in ended.err


def test_without_a_traffic_there_is_no_forecast(tuner, best):
    ended = tuner("forecast", best)
    assert (ended.code, ended.out) == (2, "")
    assert "--queries-per-day" in ended.err
