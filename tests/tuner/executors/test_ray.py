"""Evaluations on a real Ray cluster on loopback: the same records as anywhere else, whatever becomes of its workers and machines."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from contextlib import suppress
from typing import Any

import numpy as np
import psutil
import pytest

from tuner.spec import LoadedStudy
from tuner.spec import load_study
from tuner.store import Store

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TUNER = [sys.executable, "-c", "from tuner.cli import main; main()"]
LOOPBACK_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

MakeStudy = Callable[..., LoadedStudy]
Serve = Callable[..., Any]


@pytest.fixture
def on_ray(make_study: MakeStudy, cluster: Any) -> Callable[..., LoadedStudy]:
    """Writes a study that runs on the cluster, its model at these addresses."""

    def make(*addresses: str, num_cpus: float = 1, **how: Any) -> LoadedStudy:
        study = make_study(server="HERE", **how)
        ends = ", ".join(f'{{api_base: "{address}"}}' for address in addresses)
        text = study.path.read_text().replace('api_base: "HERE"', f"endpoints: [{ends}]")
        text = text.replace("[accuracy, tokens_total]", "[accuracy, latency_p50_s]")
        text += f'executor: {{ray: {{address: "{cluster.address}", num_cpus: {num_cpus}}}}}\n'
        study.path.write_text(text)
        return load_study(study.path)

    return make


def start(study: LoadedStudy) -> subprocess.Popen[str]:
    """A run of it."""
    return subprocess.Popen(
        [*TUNER, "run", str(study.path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **LOOPBACK_ALONE},
    )


def run(study: LoadedStudy) -> str:
    """What a run said, which came to its end."""
    process = start(study)
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 0, said
    return said


def runs(study: LoadedStudy) -> dict[int, Any]:
    """By trial: its state, and the runs of both splits."""
    store = Store.open(study.storage_url, study.spec.name)
    found = {
        trial.number: (
            trial.state,
            [run for split in ("search", "holdout") for run in store.runs(trial.trial_id, split)],
        )
        for trial in store.trials()
    }
    store.close()
    return found


def count(study: LoadedStudy) -> int:
    """Answers that are kept so far."""
    with suppress(Exception):
        return sum(len(each) for _, each in runs(study).values())
    return 0


def require_whole(study: LoadedStudy) -> None:
    """Every trial is told, nothing is kept twice, and no failure was made up."""
    for state, each in runs(study).values():
        assert state == "complete"
        assert max(Counter((run.example_id, run.repeat) for run in each).values(), default=1) == 1
        assert [run.error for run in each] == [None] * len(each)


def until(condition: Callable[[], bool], *, within_s: float = 300.0) -> None:
    """Wait for it."""
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_what_machines_warn_of_does_not_stand_between_data(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray._private import worker

    from tuner.executors.ray import keep_stdout_for_data

    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)
    keep_stdout_for_data()
    warning = {"lines": ["many workers"], "pid": "raylet", "is_err": False}
    worker.print_to_stdstream(warning, ignore_prefix=False)  # as worker.listen_error_messages does
    said = capsys.readouterr()
    assert (said.out, "many workers" in said.err) == ("", True)


def test_a_study_finds_on_a_cluster_what_it_finds_here(
    on_ray: Callable[..., LoadedStudy], serve: Serve
) -> None:
    with serve("--delay-s", "0.02") as one, serve("--delay-s", "0.02") as other:
        study = on_ray(one, other, trials=8)
        said = run(study)
    require_whole(study)
    assert "all 8 trials are done" in said
    store = Store.open(study.storage_url, study.spec.name)
    row = store.row()
    assert row is not None
    assert row.provenance["models"]["loopback"]["settings"]["model"] == "openai/loopback"
    passes = [each for trial in store.trials() for each in store.passes(trial.trial_id, "search")]
    assert passes
    assert all(0 < each.load["questions"] <= 10 for each in passes)
    store.close()


def test_no_kill_of_a_worker_loses_or_repeats_an_answer(
    on_ray: Callable[..., LoadedStudy], serve: Serve, cluster: Any
) -> None:
    rng = np.random.default_rng(1)
    kills = 0
    with serve("--delay-s", "0.05") as one, serve("--delay-s", "0.05") as other:
        study = on_ray(one, other, trials=10)
        process = start(study)
        until(lambda: count(study) > 3)
        while process.poll() is None and kills < 8:
            before = count(study)
            workers = cluster.workers()
            if workers:
                victim = workers[int(rng.integers(len(workers)))]
                with suppress(psutil.NoSuchProcess):
                    victim.send_signal(signal.SIGKILL)
                    kills += 1
            # An answer in between, or the study ends as one whose workers do not stay up.
            until(lambda before=before: count(study) > before + 1 or process.poll() is not None)  # type: ignore[misc]
        said = process.communicate(timeout=600)[1]
    assert process.returncode == 0, said
    assert kills >= 5
    assert re.search(r"worker [\d.]+ was lost \(.*\); its question is asked again", said)
    require_whole(study)
    until(lambda: not cluster.workers())


def test_machines_come_and_go(
    on_ray: Callable[..., LoadedStudy], serve: Serve, cluster: Any
) -> None:
    with ExitStack() as stack:
        addresses = [stack.enter_context(serve("--delay-s", "0.1")) for _ in range(3)]
        study = on_ray(*addresses, num_cpus=2, trials=10)
        process = start(study)
        until(lambda: count(study) > 2)
        assert len(cluster.workers()) == 1  # there is room for one
        machine = cluster.add(num_cpus=2)
        until(lambda: len(cluster.workers()) == 2)
        before = count(study)
        until(lambda: count(study) > before + 15)
        cluster.remove(machine)
        until(lambda: len(cluster.workers()) == 1)
        said = process.communicate(timeout=600)[1]
    assert process.returncode == 0, said
    require_whole(study)


def test_a_driver_that_is_killed_leaves_no_worker_behind_and_the_next_goes_on(
    on_ray: Callable[..., LoadedStudy], serve: Serve, cluster: Any
) -> None:
    with serve("--delay-s", "0.05") as one, serve("--delay-s", "0.05") as other:
        study = on_ray(one, other, trials=5)
        process = start(study)
        until(lambda: count(study) > 12)
        process.kill()
        process.communicate()
        until(lambda: not cluster.workers())
        run(study)
    require_whole(study)


def test_servers_that_the_study_starts_run_on_the_workers_and_end_with_them(
    on_ray: Callable[..., LoadedStudy], stand_in: Any, cluster: Any
) -> None:
    study = on_ray("http://127.0.0.1:9/v1", trials=6)
    # Neither answers before the other is started, so that none does all the trials alone.
    command = ", ".join(["env", "STAND_IN=beside=2", *stand_in.command])
    served = f"serve: vllm, model: a/b, endpoint: completion, command: [{command}], max_retries: 0"
    text = re.sub(r"loopback: \{.*\}\}", f"loopback: {{{served}}}}}", study.path.read_text())
    study.path.write_text(text)
    run(load_study(study.path))
    require_whole(load_study(study.path))
    starts = stand_in.starts()
    assert len(starts) == 2  # a GPU each
    assert not any(psutil.pid_exists(start["pid"]) for start in starts)


@pytest.mark.parametrize(
    ("executor", "message"),
    [
        ('{address: "127.0.0.1:9"}', r"executor: ray: address '127.0.0.1:9': .*"),
        ("{address: CLUSTER, num_cpus: 64}", r"no machine of the cluster has room for a worker: 64 CPU"),
    ],
)  # fmt: skip
def test_a_cluster_that_cannot_be_used_is_said_before_the_first_trial(
    on_ray: Callable[..., LoadedStudy], api_base: str, cluster: Any, executor: str, message: str
) -> None:
    study = on_ray(api_base)
    text = re.sub(r"executor: .*", f"executor: {{ray: {executor}}}", study.path.read_text())
    study.path.write_text(text.replace("CLUSTER", f'"{cluster.address}"'))
    process = start(study)
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 2
    assert re.search(message, said), said
    assert "Traceback" not in said
    assert "hint: " in said
