"""`tuner run --json`: a line for each event, the last the result."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tuner import stream

COMMON = {"event", "time", "elapsed_s"}
SCHEMA = {
    "started": {"stream_version", "study", "task", "objectives", "budget"},
    "message": {"text"},
    "pass_started": {"trial", "config", "label", "split", "questions", "finished"},
    "question_finished": {
        "trial", "split", "example", "repeat", "score", "error", "latency_s", "energy_j", "energy_source",
        "tokens_in", "tokens_out", "tokens_cached", "cost_usd",
    },
    "pass_ended": {"trial", "split"},
    "trial_ended": {"trial", "config", "label", "values", "replay_of", "failure", "stopped"},
    "front_expected": {"configs"},
    "search_ended": {"reason"},
    "result": {"front", "recommended"},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "pooled"])
def test_each_line_has_the_documented_keys_and_the_last_is_the_result(tuner, make_study, sampler):
    study = make_study(trials=3)
    text = study.path.read_text().replace("name: tpe", f"name: {sampler}")
    study.path.write_text(text)
    ended = tuner("run", study.path, "--json")
    assert ended.code == 0, ended.err
    lines = [json.loads(line, parse_constant=pytest.fail) for line in ended.out.splitlines()]
    for line in lines:
        assert line.keys() == COMMON | SCHEMA[line["event"]], line
    assert lines[0]["event"] == "started"
    assert lines[0]["stream_version"] == stream.STREAM_VERSION
    times = [line["elapsed_s"] for line in lines]
    assert times == sorted(times)
    events = [line["event"] for line in lines]
    assert events.count("search_ended") == 1
    assert events.count("result") == 1
    assert ("front_expected" in events) == (sampler == "pooled")
    asked = [line for line in lines if line["event"] == "question_finished"]
    assert {line["split"] for line in asked} == {"search", "holdout"}
    result = lines[-1]
    assert result["event"] == "result"
    assert result["front"]["study"] == "small"
    assert result["front"] == json.loads(tuner("front", study.path, "--json").out)
    assert result["recommended"]["trial"] in [p["trial"] for p in result["front"]["points"]]


@pytest.mark.slow
def test_a_reader_that_leaves_stops_the_run_and_fails_no_trial(tuner, make_study):
    study = make_study(trials=2)
    command = [sys.executable, "-c", "from tuner.cli import main; main()", "run", str(study.path), "--json"]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        while "question_finished" not in run.stdout.readline():
            pass
        run.stdout.close()
        said = run.stderr.read()
    assert run.returncode == 2
    assert said.endswith("error: whoever read the events has closed the pipe\nhint: the same command goes on from here\n")  # fmt: skip
    assert json.loads(tuner("status", study.path, "--json").out)["trials"]["failed"] == 0


def test_the_guide_names_every_event_and_key():
    guide = (Path(__file__).resolve().parents[3] / "docs" / "running.md").read_text()
    for event, keys in SCHEMA.items():
        assert f"`{event}`" in guide
        for key in keys | COMMON:
            assert f"`{key}`" in guide, f"{event}: {key}"


def test_a_mistake_is_told_on_stderr_alone(tuner, tmp_path):
    ended = tuner("run", tmp_path / "none.yaml", "--json")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: ")
