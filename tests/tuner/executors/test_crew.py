"""Evaluations side by side against real servers: who gets which, what is asked again, and what is never measured beside another."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tuner.errors import SpecError
from tuner.errors import UserError
from tuner.events import ExampleFinished
from tuner.events import PassEnded
from tuner.events import PassStarted
from tuner.events import Talk
from tuner.executors.slots import Slots
from tuner.spec import LoadedStudy
from tuner.spec import load_study
from tuner.store import Store
from tuner.study import run_study
from tuner.study import run_study_among

MakeStudy = Callable[..., LoadedStudy]
Serve = Callable[..., Any]

ONE = 'api_base: "{}", max_retries: 0'
TIMED = ("objectives: [accuracy, tokens_total]", "objectives: [accuracy, latency_p50_s]")


class Watch:
    """Which trials were under way at once, and what was said."""

    def __init__(self, then: Callable[[object], None] = lambda event: None) -> None:
        self.open: set[int] = set()
        self.most = 0
        self.said: list[str] = []
        self._then = then

    def __call__(self, event: object) -> None:
        if isinstance(event, PassStarted):
            self.open.add(event.trial)
            self.most = max(self.most, len(self.open))
        if isinstance(event, PassEnded):
            self.open.discard(event.trial)
        if isinstance(event, Talk):
            self.said.append(event.text)
        self._then(event)


@pytest.fixture
def at_several(make_study: MakeStudy, api_base: str) -> Iterator[Callable[..., LoadedStudy]]:
    """Writes a study whose model is served at these addresses."""

    def make(*addresses: str, objectives: str = "", meters: str = "", **how: Any) -> LoadedStudy:
        study = make_study(server=api_base, **how)
        ends = ", ".join(f'{{api_base: "{address}"{meters}}}' for address in addresses)
        text = study.path.read_text()
        text = text.replace(ONE.format(api_base), f"max_retries: 0, endpoints: [{ends}]")
        if objectives:
            text = text.replace("[accuracy, tokens_total]", objectives)
        study.path.write_text(text)
        return load_study(study.path)

    return make


def kept(study: LoadedStudy) -> dict[int, Any]:
    """By trial: its state, and its runs on both splits."""
    store = Store.open(study.storage_url, study.spec.name)
    found = {
        trial.number: (
            trial.state,
            [run for split in ("search", "holdout") for run in store.runs(trial.trial_id, split)],
            store.runs(trial.trial_id, "edge"),
        )
        for trial in store.trials()
    }
    store.close()
    return found


def require_whole(study: LoadedStudy) -> None:
    """Every trial was told, and no question was kept twice."""
    for state, runs, _ in kept(study).values():
        assert state == "complete"
        asked = Counter((run.example_id, run.repeat) for run in runs)
        assert max(asked.values(), default=1) == 1


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "pooled", "random"])
def test_trials_spread_over_the_servers_of_a_model(
    at_several: Callable[..., LoadedStudy], serve: Serve, sampler: str
) -> None:
    with serve("--delay-s", "0.02") as one, serve("--delay-s", "0.02") as other:
        study = at_several(one, other, objectives="[accuracy, latency_p50_s]", trials=8)
        study.path.write_text(study.path.read_text().replace("name: tpe", f"name: {sampler}"))
        watch = Watch()
        run_study(load_study(study.path), report=watch)
    assert watch.most == 2
    if sampler != "pooled":  # which settles what it has not asked everything
        require_whole(study)
    states = {state for state, _, _ in kept(study).values()}
    assert states == {"complete"}
    store = Store.open(study.storage_url, study.spec.name)
    row = store.row()
    assert row is not None
    busy_s = sum(run.latency_s for _, runs, _ in kept(study).values() for run in runs)
    assert row.search_s < busy_s  # beside each other, they count once
    store.close()


BUDGETS = """
format_version: 1
name: budgets
workflows:
  react: {max_steps: [1, 2, 3, 4], thoughts: [true, false]}
"""


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "pooled"])
def test_budgets_beside_each_other_keep_no_question_twice(
    at_several: Callable[..., LoadedStudy], serve: Serve, sampler: str
) -> None:
    with ExitStack() as stack:
        addresses = [stack.enter_context(serve("--delay-s", "0.02")) for _ in range(4)]
        study = at_several(
            *addresses, objectives="[accuracy, latency_p50_s]", trials=8, space=BUDGETS
        )
        study.path.write_text(study.path.read_text().replace("name: tpe", f"name: {sampler}"))
        watch = Watch()
        run_study(load_study(study.path), report=watch)
    assert watch.most > 1
    require_whole(study)


@pytest.mark.slow
def test_with_time_a_trial_has_a_server_to_itself_and_without_it_has_them_all(
    at_several: Callable[..., LoadedStudy], serve: Serve
) -> None:
    with ExitStack() as stack:
        addresses = [stack.enter_context(serve("--delay-s", "0.05")) for _ in range(3)]
        timed = at_several(*addresses, objectives="[accuracy, latency_p50_s]", trials=1, folder="t")
        run_study(timed)
        counted = at_several(*addresses, trials=1, folder="c")
        run_study(counted)
    windows = [
        {run.window for _, runs, _ in kept(study).values() for run in runs}
        for study in (timed, counted)
    ]
    # A sitting for each server: 10 search questions lie in three of them at once, 6 holdout questions in three more.
    assert len(windows[0]) == 2
    assert len(windows[1]) == 6
    require_whole(counted)


@pytest.mark.slow
def test_a_server_that_goes_leaves_the_study_to_the_others_and_comes_back(
    at_several: Callable[..., LoadedStudy], serve: Serve
) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(ExitStack())
        going = first.enter_context(serve("--delay-s", "0.02"))
        staying = stack.enter_context(serve("--delay-s", "0.02"))
        port = going.rpartition(":")[2].removesuffix("/v1")
        study = at_several(
            going, staying, objectives="[accuracy, latency_p50_s]", trials=12, questions=30,
            replace=("examples: 10, holdout: 6", "examples: 20, holdout: 6"),
        )  # fmt: skip
        finished = 0

        def end(event: object) -> None:
            nonlocal finished
            finished += isinstance(event, ExampleFinished)
            if finished == 30 and isinstance(event, ExampleFinished):
                first.close()
            if isinstance(event, Talk) and "goes on with 1 of 2 servers" in event.text:
                stack.enter_context(serve("--port", port, "--delay-s", "0.02"))

        watch = Watch(end)
        run_study(study, report=watch)
    assert any(re.search(r"goes on with 1 of 2 servers", text) for text in watch.said)
    assert any(f"{going} answers again" in text for text in watch.said)
    require_whole(study)
    # What was being asked as the server went is kept as an extra one, with what it cost.
    for _, runs, extras in kept(study).values():
        assert not [run for run in runs if run.error]
        assert len(extras) <= 1


RECORDING = """\
# source: nvml-counter
# scope: {gpu}
# tick_s: 0.01
# devices: {gpu}
t_s,joules,power_w,temperature_c,problem
0.0,0.0,,,
600.0,60000.0,,,
"""


@pytest.mark.slow
@pytest.mark.parametrize(("gpus", "most"), [(("GPU-1", "GPU-1"), 1), (("GPU-1", "GPU-2"), 2)])
def test_one_trial_at_a_time_on_a_metered_device(
    at_several: Callable[..., LoadedStudy], serve: Serve, gpus: tuple[str, str], most: int
) -> None:
    with serve("--delay-s", "0.02") as one, serve("--delay-s", "0.02") as other:
        study = at_several(
            one, other, objectives="[accuracy, energy_wh]", meters=", meter: {replay: PLACE}"
        )
        text = study.path.read_text()
        for number, gpu in enumerate(gpus):
            text = text.replace("PLACE", f"{number}.csv", 1)
            (study.path.parent / f"{number}.csv").write_text(RECORDING.format(gpu=gpu))
        study.path.write_text(text)
        watch = Watch()
        run_study(load_study(study.path), report=watch)
    assert watch.most == most
    require_whole(study)


@pytest.mark.slow
def test_models_at_one_address_each_share_their_host_and_wait_for_each_other(
    make_study: MakeStudy, serve: Serve
) -> None:
    with serve("--delay-s", "0.02") as one, serve("--delay-s", "0.02") as other:
        study = make_study(server=one)
        text = study.path.read_text()
        text = text.replace(
            "models: {", f'models: {{second: {{model: openai/loopback, api_base: "{other}"}}, '
        )
        study.path.write_text(text)
        watch = Watch()
        run_study(load_study(study.path), report=watch)
    assert watch.most == 1


@pytest.mark.slow
async def test_studies_on_one_server_have_it_by_their_weights(
    make_study: MakeStudy, serve: Serve
) -> None:
    with serve("--delay-s", "0.02") as one:
        studies = [
            make_study(folder=name, server=one, trials=40, extra="racing: false\n")
            for name in ("light", "heavy")
        ]
        slots, asked = Slots(), Counter[str]()

        async def run(study: LoadedStudy, weight: float) -> None:
            def count(event: object) -> None:
                asked[study.path.parent.name] += isinstance(event, ExampleFinished)

            await run_study_among(study, slots, weight=weight, report=count)

        running = [
            asyncio.create_task(run(each, w)) for each, w in zip(studies, (1.0, 3.0), strict=True)
        ]
        while asked.total() < 80 and not any(each.done() for each in running):
            await asyncio.sleep(0.1)
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    assert asked["heavy"] > 1.3 * asked["light"]  # without a config asked for ahead: as many


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            '{model: openai/m, endpoints: [{api_base: "http://a/v1"}], api_base: "http://b/v1"}',
            "has endpoints: api_base belongs to each of them",
        ),
        (
            '{model: openai/m, endpoints: [{api_base: "http://a/v1"}, {api_base: "http://a/v1/"}]}',
            "names an address twice",
        ),
        (
            '{model: openai/m, endpoints: [{api_base: "http://a/v1", meter: {nvml: all}}, {api_base: "http://b/v1"}]}',
            "metered in different ways (none, nvml)",
        ),
    ],
)
def test_endpoints_that_cannot_be_are_refused(
    make_study: MakeStudy, model: str, message: str
) -> None:
    study = make_study()
    text = re.sub(r"models: \{.*\}\}", f"models: {{loopback: {model}}}", study.path.read_text())
    study.path.write_text(text)
    with pytest.raises(SpecError, match=re.escape(message)) as refused:
        load_study(study.path)
    assert "models.loopback" in str(refused.value)


@pytest.mark.slow
def test_a_server_more_is_no_other_study(
    at_several: Callable[..., LoadedStudy], serve: Serve
) -> None:
    with serve() as one, serve() as other:
        run_study(at_several(one, trials=2))
        run_study(at_several(one, other, trials=4))
        study = at_several(other, trials=6)
        run_study(study)
    require_whole(study)
    assert len(kept(study)) >= 6


@pytest.mark.slow
def test_one_that_does_not_answer_at_first_is_left_out_and_all_of_them_end_the_run(
    at_several: Callable[..., LoadedStudy], serve: Serve
) -> None:
    with serve() as gone, serve() as gone_too:
        pass
    with serve() as one:
        watch = Watch()
        study = at_several(gone, one, trials=3)
        run_study(study, report=watch)
    assert any("nothing answers at" in text and gone in text for text in watch.said)
    require_whole(study)
    with pytest.raises(UserError, match="nothing answers at"):
        run_study(at_several(gone, gone_too, folder="none"))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("gpus: [0]", r"study.yaml:\d+: models.m.gpus: on Ray, each worker has its GPUs"),
        ("meter: {nvml: all}", r"study.yaml:\d+: models.m.meter.nvml: on Ray, a worker's GPUs"),
        ("meter: {nvml: visible}", None),
    ],
)
def test_a_worker_measures_no_gpus_of_its_neighbours(
    make_study: MakeStudy, model: str, message: str | None
) -> None:
    study = make_study()
    served = f"models:\n  m:\n    serve: vllm\n    model: a/b\n    {model}\n"
    text = re.sub(r"models: .*\n", served, study.path.read_text())
    study.path.write_text(text + "executor: {ray: {}}\n")
    if message is None:
        load_study(study.path)
        return
    with pytest.raises(SpecError, match=message):
        load_study(study.path)


def test_the_report_of_a_study_file_is_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("format_version: 1\nname: s\nexecutor: {rays: {}}\n")
    with pytest.raises(SpecError, match=r"executor: .*local, \{ray: …\} or \{replay: FILE\}"):
        load_study(tmp_path / "study.yaml")
