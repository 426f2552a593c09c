"""benchmarks/scale.py: its parts about slots and about runs in flight measure what they say."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


class Family:
    """Processes that do nothing."""

    def look(self) -> None:
        """Nothing new."""

    def cpu_s(self) -> dict[str, float]:
        """None, on a machine with nothing else to do."""
        return {"driver": 0.0, "machine": 0.0}


def test_throughput_is_that_of_the_time_in_which_all_slots_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    scale_slots = importlib.import_module("scale_slots")
    watch = scale_slots._Watch(slots=2, wanted=10, calls=2)

    def hear(now_s: float, event: str, trial: int) -> None:
        watch.hear({"event": event, "trial": trial, "error": None}, now_s, Family())

    # The second slot comes late, and its first trial is slow: neither counts. Then each takes 2 s, half a second apart.
    hear(0.0, "pass_started", 0)
    events = [(30.0, "pass_started", 1)]
    number = 2
    for first_s in (0.0, 42.0):
        now_s, trial = first_s, int(first_s > 0)
        while now_s < 80.0:
            if first_s or now_s:
                events += [(now_s, "pass_started", number)]
                trial, number = number, number + 1
            events += [(now_s + 1, "question_finished", trial)]
            events += [(now_s + 2, "question_finished", trial), (now_s + 2, "pass_ended", trial)]
            now_s += 2.5
    events += [(41.5, "question_finished", 1), (41.5, "question_finished", 1)]
    events += [(41.5, "pass_ended", 1)]
    for event in sorted(events):
        if not watch.is_over:
            hear(*event)
    found: dict[str, Any] = watch.result()
    assert found["trials_per_s"] == pytest.approx(2 / 2.5, rel=0.1)
    assert (found["pass_s"], found["gap_s"]) == (2.0, 0.5)
    assert 10 <= found["trials"] <= 12


@pytest.mark.slow
def test_runs_in_flight_are_counted_and_none_fails() -> None:
    command = [sys.executable, str(BENCHMARKS / "scale.py"), "--part", "in_flight"]
    said = subprocess.run(
        [*command, "--quick", "--json"], check=True, capture_output=True, text=True
    )
    found = json.loads(said.stdout)
    assert found["benchmark"] == "scale"
    one, many = found["in_flight"].values()
    assert (one["runs"], one["calls"], many["runs"], many["calls"]) == (10, 50, 100, 500)
    assert one["failed"] == many["failed"] == 0
    assert many["under_way_mean"] > 25 > one["under_way_mean"]
