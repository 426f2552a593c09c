"""Limits that nothing could keep are refused before the first trial."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuner.errors import UserError
from tuner.executors.fleet import Fleet
from tuner.spec import LoadedStudy
from tuner.spec import load_study

MakeStudy = Callable[..., LoadedStudy]


def bring_up(study: LoadedStudy) -> None:
    """Start what the study needs, as a run does, and stop it again."""
    with Fleet(study) as fleet:

        async def open_and_close() -> None:
            try:
                await fleet.open()
            finally:
                await fleet.disconnect()

        asyncio.run(open_and_close())


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("energy_wh", "budget: energy_wh needs a meter, and model 'loopback' has none"),
        ("gpu_hours", "budget: gpu_hours needs a meter, and model 'loopback' has none"),
        ("cost_usd", "budget: cost_usd: litellm has no price for model 'openai/loopback'"),
    ],
)
def test_a_limit_needs_what_it_is_measured_with(
    make_study: MakeStudy, limit: str, message: str
) -> None:
    study = make_study(replace=("{trials: 6}", f"{{trials: 6, {limit}: 1}}"))
    with pytest.raises(UserError, match=message) as refused:
        bring_up(study)
    assert refused.value.hint is not None


RECORDING = """\
# source: nvml-counter
# scope: GPU-1, GPU-2
# tick_s: 0.1
{devices}t_s,joules,power_w,temperature_c,problem
0.0,0.0,,,
9.0,900.0,,,
"""


def test_gpu_hours_need_a_meter_that_says_which_gpus(make_study: MakeStudy, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    recording = tmp_path / "study" / "power.csv"
    recording.write_text(RECORDING.format(devices="# devices: GPU-1 GPU-2\n"))
    make_study(replace=("max_retries: 0}", "max_retries: 0, meter: {replay: power.csv}}"))
    path = tmp_path / "study" / "study.yaml"
    path.write_text(path.read_text().replace("{trials: 6}", "{trials: 6, gpu_hours: 1}"))
    bring_up(load_study(path))
    recording.write_text(RECORDING.format(devices=""))
    with pytest.raises(UserError, match=r"\(replay\(nvml-counter\)\) names no GPUs to count"):
        bring_up(load_study(path))


def test_tokens_need_a_server_that_counts_them(make_study: MakeStudy, serve: Any) -> None:
    bring_up(make_study(replace=("{trials: 6}", "{trials: 6, tokens: 1000}")))
    with serve("--no-usage") as address:
        study = make_study(server=address, replace=("{trials: 6}", "{trials: 6, tokens: 1000}"))
        with pytest.raises(UserError, match="budget: tokens: the server of model 'loopback'"):
            bring_up(study)
        bring_up(make_study(server=address))
