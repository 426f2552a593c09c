"""What a study is predicted to take, from a few examples, and which limit it comes to first."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuner.check import CONFIRMED
from tuner.check import Forecast
from tuner.check import check_study
from tuner.errors import UserError
from tuner.record import measure_space
from tuner.spec import LoadedStudy
from tuner.spec import load_study

MakeStudy = Callable[..., LoadedStudy]

ONE = "format_version: 1\nname: one\nworkflows:\n  cot: {max_tokens: [64, 128]}\n"
RECORDING = """\
# source: nvml-counter
# scope: GPU-1, GPU-2
# tick_s: 0.1
# devices: GPU-1 GPU-2
t_s,joules,power_w,temperature_c,problem
0.0,0.0,,,
900.0,90000.0,,,
"""


def limited(make_study: MakeStudy, limits: str, **options: Any) -> Forecast:
    """The forecast for a study with these limits beside its six trials."""
    return check_study(make_study(replace=("{trials: 6}", f"{{trials: 6, {limits}}}"), **options))


@pytest.fixture
def tokens(make_study: MakeStudy) -> float:
    """Of a question of any config of the space ONE."""
    return check_study(make_study(space=ONE)).predictions["tokens"].trial.mean / 10


def test_without_other_limits_all_trials_are_predicted(make_study: MakeStudy) -> None:
    forecast = check_study(make_study())
    assert (forecast.trials.low, forecast.trials.mean, forecast.trials.high) == (6, 6, 6)
    assert forecast.ends_by == "trials"
    assert forecast.predictions.keys() == {"wall_clock", "tokens"}  # no meter, no price
    for each in forecast.predictions.values():
        assert 0 < each.trial.low < each.trial.mean < each.trial.high
        assert each.search.mean == pytest.approx(6 * each.trial.mean)
        assert each.search.high == pytest.approx(6 * each.trial.high)
        assert each.holdout.mean == pytest.approx(CONFIRMED * each.trial.mean * 6 / 10)
        assert each.limit is None


def test_a_space_smaller_than_the_budget_ends_the_search(make_study: MakeStudy) -> None:
    forecast = check_study(make_study(space=ONE))
    assert (forecast.trials.mean, forecast.ends_by) == (2, "search_space")


def test_what_is_paid_for_is_kept_for_the_holdout_pass(
    make_study: MakeStudy, tokens: float
) -> None:
    holdout = CONFIRMED * 6 * tokens
    forecast = limited(make_study, f"tokens: {int(holdout + 19 * tokens)}", space=ONE)
    assert (forecast.trials.mean, forecast.ends_by) == (1, "tokens")
    assert forecast.predictions["tokens"].search.mean == 10 * tokens
    assert limited(make_study, f"tokens: {int(holdout)}", space=ONE).trials.mean == 0


def test_the_wall_clock_is_for_the_search(make_study: MakeStudy) -> None:
    forecast = limited(make_study, "wall_clock: 0.000001s")
    assert (forecast.trials.mean, forecast.ends_by) == (0, "wall_clock")
    assert forecast.search_s == 0.0
    assert forecast.predictions["wall_clock"].limit == 0.000001
    assert limited(make_study, "wall_clock: 9h").ends_by == "trials"


def test_trials_at_once_take_less_time_and_no_less_of_anything_else(
    make_study: MakeStudy, serve: Callable[..., Any]
) -> None:
    with serve() as one, serve() as other:
        study = make_study(server="HERE")
        ends = f'endpoints: [{{api_base: "{one}"}}, {{api_base: "{other}"}}]'
        text = study.path.read_text().replace('api_base: "HERE"', ends)
        study.path.write_text(text)
        forecast = check_study(load_study(study.path))
    assert forecast.at_once == 2
    clock, tokens = (forecast.predictions[name] for name in ("wall_clock", "tokens"))
    assert clock.search.mean == pytest.approx(6 * clock.trial.mean / 2)
    assert tokens.search.mean == pytest.approx(6 * tokens.trial.mean)


def test_extra_questions_are_paid_for_as_well(make_study: MakeStudy, tokens: float) -> None:
    forecast = check_study(make_study(space=ONE, extra="load: {rate: 50, warm_up: 5}\n"))
    assert forecast.predictions["tokens"].trial.mean == 15 * tokens
    clock = forecast.predictions["wall_clock"].trial.mean
    assert clock == pytest.approx(15 / 50 + forecast.seconds_per_example)


@pytest.mark.slow
def test_gpu_hours_are_those_of_all_gpus(make_study: MakeStudy, tmp_path: Path) -> None:
    make_study(replace=("max_retries: 0}", "max_retries: 0, meter: {replay: power.csv}}"))
    (tmp_path / "study" / "power.csv").write_text(RECORDING)
    path = tmp_path / "study" / "study.yaml"
    path.write_text(path.read_text().replace("{trials: 6}", "{trials: 6, gpu_hours: 0.5}"))
    forecast = check_study(load_study(path))
    hours, clock = forecast.predictions["gpu_hours"], forecast.predictions["wall_clock"]
    assert hours.trial.mean == pytest.approx(2 * clock.trial.mean / 3600)
    assert (hours.limit, hours.unit) == (0.5, "GPU-hours")
    assert forecast.predictions["energy_wh"].trial.mean > 0


def test_a_sampler_that_cannot_be_made_is_refused_before_anything_starts(
    make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_none(name: str) -> Any:
        return None

    monkeypatch.setattr("tuner.samplers.gp.find_spec", find_none)
    study = make_study(server="http://127.0.0.1:9/v1", replace=("name: tpe", "name: gp"))
    with pytest.raises(UserError, match="gp needs torch"):
        check_study(study)


def test_a_recorded_table_is_probed_without_a_server(make_study: MakeStudy) -> None:
    study = make_study(space=ONE)
    measure_space(study).write(study.path.parent / "table.jsonl.gz")
    path = study.path
    path.write_text(
        path.read_text().replace("127.0.0.1", "127.0.0.9").replace("holdout: 6", "holdout: 0")
        + "executor: {replay: table.jsonl.gz}\n"
    )
    forecast = check_study(load_study(path))
    assert forecast.energy == {"loopback": "replayed none"}
    assert forecast.predictions["tokens"].trial.mean > 0
    assert forecast.ends_by == "search_space"
