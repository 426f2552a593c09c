"""The whole path on the real small model, as the README walks it: the quickstart study, made smaller."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import openai
import pytest
import yaml

import workflows
from tuner.serving import Endpoint

ROOT = Path(__file__).resolve().parents[1]


def tuner(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does; its outputs apart."""
    command = [str(Path(sys.executable).parent / "tuner"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, smollm2: Endpoint) -> Path:
    """A user's folder after `tuner init`, the study cut to a few trials, and `tuner run`."""
    folder = tmp_path_factory.mktemp("user")
    started = tuner(folder, "init")
    assert started.stdout.split() == ["search_spaces/quickstart.yaml", "studies/quickstart.yaml"]
    path = folder / "studies" / "quickstart.yaml"
    study = yaml.safe_load(path.read_text())
    study["task"].update(examples=4, holdout=3)
    study["budget"] = {"trials": 5}
    path.write_text(yaml.safe_dump(study))
    ran = tuner(folder, "run", "studies/quickstart.yaml")
    assert ran.returncode == 0, ran.stderr
    assert "Front on 4 search questions" in ran.stdout
    assert "on 3 holdout questions" in ran.stdout
    assert "search ended: all 5 trials are done" in ran.stderr
    return folder


@pytest.mark.slow
def test_the_front_is_measured_and_has_its_sources(folder: Path) -> None:
    shown = tuner(folder, "front", "studies/quickstart.yaml", "--json")
    content = json.loads(shown.stdout)
    assert content["trials"]["running"] == content["trials"]["failed"] == 0
    assert {point["split"] for point in content["points"]} == {"search", "holdout"}
    for point in content["points"]:
        assert point["sources"] == {"energy": "cpu-estimate"}
        for name, (low, high) in point["intervals"].items():
            # Three or four questions do not tell how far a median may reach.
            assert low is not None or name != "accuracy"
            assert (low or 0.0) <= point["values"][name] <= (float("inf") if high is None else high)
        assert point["values"]["latency_p50_s"] > 0
        assert point["values"]["energy_wh"] > 0


@pytest.mark.slow
def test_an_exported_config_runs_by_the_line_that_export_prints(folder: Path) -> None:
    exported = tuner(folder, "export", "studies/quickstart.yaml", "--rule", "max-accuracy")
    assert exported.stdout == "best.yaml\n"
    line = next(row for row in exported.stderr.splitlines() if "tuner ask" in row)
    question = line.split('"')[1]
    asked = tuner(folder, "ask", "best.yaml", question)
    assert asked.returncode == 0, asked.stderr
    assert "model calls" in asked.stderr
    assert asked.stdout.count("\n") == 1
    provenance = yaml.safe_load((folder / "best.yaml").read_text())["provenance"]
    assert provenance["measured"]["holdout"]["n"] == 3
    assert str(folder) not in (folder / "best.yaml").read_text()


@pytest.mark.slow
async def test_an_exported_config_answers_alike_by_workflows_alone(
    folder: Path, smollm2: Endpoint
) -> None:
    tuner(folder, "export", "studies/quickstart.yaml", "--out", "alone.yaml")
    agent = workflows.load(folder / "alone.yaml", api_base=smollm2.settings.api_base)
    store = json.loads(tuner(folder, "show", "studies/quickstart.yaml", "0", "--json").stdout)
    assert store["examples"]
    outcome = await agent.run("What does the baker of York sell?")
    assert [span.error for span in outcome.spans if span.kind == "llm"] == [None] * sum(
        span.kind == "llm" for span in outcome.spans
    )


@pytest.mark.slow
def test_an_exported_config_is_served_and_verified(folder: Path) -> None:
    tuner(folder, "export", "studies/quickstart.yaml", "--out", "served.yaml")
    command = [str(Path(sys.executable).parent / "tuner"), "serve", "served.yaml", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        try:
            with openai.OpenAI(base_url=url, api_key="none") as client:
                reply = client.chat.completions.create(
                    model="served",
                    messages=[{"role": "user", "content": "What does the baker of York sell?"}],
                )
            assert reply.usage is not None
            assert reply.usage.completion_tokens > 0
            time.sleep(0.5)  # joules are counted in periods
            metrics = httpx.get(f"{url.removesuffix('/v1')}/metrics").text
        finally:
            process.terminate()
            assert process.wait(60) == 0
    (line,) = (
        row for row in metrics.splitlines() if row.startswith("tuner_query_energy_joules_sum")
    )
    assert float(line.rpartition(" ")[2]) > 0
    verified = tuner(folder, "verify", "served.yaml", "--json")
    content = json.loads(verified.stdout)
    assert verified.returncode == (1 if content["outcome"] == "fails" else 0)
    assert content["left_out"] == {}
    assert {claim["name"] for claim in content["claims"]} == {
        "accuracy",
        "latency_p50_s",
        "energy_wh",
    }
    # One slot and no temperature: the answers are the same, whatever else the machine does.
    (accuracy,) = (claim for claim in content["claims"] if claim["name"] == "accuracy")
    assert accuracy["now"] == accuracy["claimed"]


@pytest.mark.slow
def test_one_trial_and_one_run_can_be_looked_at(folder: Path) -> None:
    shown = tuner(folder, "show", "studies/quickstart.yaml", "0", "--json")
    example = json.loads(shown.stdout)["examples"][0]
    assert example["energy"]["gross_j"] > 0
    assert example["energy"]["source"] == "cpu-estimate"
    traced = tuner(folder, "trace", "studies/quickstart.yaml", "0", example["example_id"])
    assert traced.stdout.startswith(f"{example['example_id']} (search): ")
    assert "tokens in" in traced.stdout


@pytest.mark.slow
def test_check_forecasts_from_real_examples_and_keeps_nothing(folder: Path) -> None:
    before = tuner(folder, "status", "studies/quickstart.yaml", "--json").stdout
    checked = tuner(folder, "check", "studies/quickstart.yaml", "--json")
    forecast = json.loads(checked.stdout)
    assert forecast["seconds_per_example"] > 0
    assert forecast["joules_per_example"] > 0
    assert forecast["configs"] >= 100
    assert tuner(folder, "status", "studies/quickstart.yaml", "--json").stdout == before


@pytest.mark.slow
def test_the_same_command_again_runs_nothing_more(folder: Path) -> None:
    before = tuner(folder, "front", "studies/quickstart.yaml", "--json").stdout
    again = tuner(folder, "run", "studies/quickstart.yaml")
    assert again.returncode == 0
    assert tuner(folder, "front", "studies/quickstart.yaml", "--json").stdout == before


def test_make_quickstart_runs_what_the_readme_says() -> None:
    recipe = subprocess.run(
        ["make", "--dry-run", "--always-make", "quickstart"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MAKEFLAGS": ""},
    ).stdout
    assert "tuner run studies/quickstart.yaml" in recipe
    assert "tuner export studies/quickstart.yaml" in recipe
