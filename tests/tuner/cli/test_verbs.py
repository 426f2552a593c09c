"""What each verb says when all is well: help, tables for people, JSON for programs."""

import json
import signal
import subprocess
import sys

import httpx
import pytest

from tuner.cli import VERBS
from tuner.records import PassRecord
from tuner.records import Reading
from tuner.serving import ENGINES
from tuner.spec import load_study
from tuner.store import Store
from workflows.config import load_agent_file


@pytest.fixture
def path(keep, found, tmp_path):
    """A study with three points on its front, one of them confirmed, and a trial that failed."""
    rows = [(1, 2, 12), (0, 2, 12), (1, 3, 13), (1, 2, 12)]
    keep(
        found("direct", {"few_shot": 2}, search=[(0, 1, 4)] * 4),
        found("react", {"max_steps": 2}, search=rows, holdout=rows),
        found("react", {"max_steps": 3}, search=[(1, 9, 40)] * 4),
        found("react", {"max_steps": 4}, search=[(1, 9, 40)], failure="3 of 4 examples failed"),
        found("react", {"max_steps": 2}, search=[], replay_of=1),
    )
    return tmp_path / "study.yaml"


@pytest.fixture
def said(tuner):
    """The JSON on stdout of a command that went well."""

    def call(*arguments):
        ended = tuner(*arguments, "--json")
        assert ended.code == 0, ended
        return json.loads(ended.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    return call


def test_help_mentions_every_verb(tuner):
    ended = tuner("--help")
    assert ended.code == 0
    listed = [line.split()[0] for line in ended.out.partition("Commands:")[2].splitlines() if line]
    assert listed == list(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(tuner, verb):
    ended = tuner(verb, "--help")
    assert ended.code == 0
    assert ended.out.startswith(f"Usage: tuner {verb} ")
    assert len(ended.out.splitlines()) >= 5


def test_front_as_json_has_the_documented_keys(said, path):
    content = said("front", path)
    assert list(content) == [
        "study",
        "task",
        "objectives",
        "trials",
        "points",
        "near",
        "infeasible",
        "expected",
    ]
    assert (content["study"], content["task"]) == ("kept", "jsonl")
    assert content["objectives"] == [
        {"name": "accuracy", "direction": "maximize", "unit": "share"},
        {"name": "latency_p50_s", "direction": "minimize", "unit": "s"},
        {"name": "energy_wh", "direction": "minimize", "unit": "Wh/query"},
    ]
    assert content["trials"] == {
        "complete": 4,
        "pruned": 0,
        "failed": 1,
        "left_out": 0,
        "running": 0,
        "derived": 0,
        "reused": 0,
        "stopped": 0,
        "infeasible": 0,
    }
    points = content["points"]
    assert [(p["trial"], p["split"]) for p in points] == [
        (2, "search"),
        (1, "search"),
        (0, "search"),
        (1, "holdout"),
    ]
    keys = {
        "trial",
        "config",
        "values",
        "intervals",
        "membership",
        "split",
        "n",
        "sources",
        "oracle",
        "on_front",
        "group",
        "feasible",
        "excess",
        "derived_from",
        "reused_from",
        "drop",
    }
    assert all(point.keys() == keys for point in points)
    best = points[1]
    assert best["config"]["workflow"] == "react"
    assert best["config"]["params"]["max_steps"] == 2
    assert best["values"]["accuracy"] == 0.75
    low, high = best["intervals"]["accuracy"]
    assert low < 0.75 < high
    assert best["intervals"]["latency_p50_s"] == [0.0, None]  # four questions tell no median
    assert (best["n"], best["sources"]) == (4, {"energy": "cpu-estimate"})
    assert (best["drop"], points[3]["drop"].keys()) == ({}, best["values"].keys())


def test_front_for_people_shows_values_sources_and_both_splits(tuner, path):
    out = tuner("front", path).out
    assert "Front on 4 search questions" in out
    assert "on 4 holdout questions" in out
    assert "Wh/query, cpu-estimate" in out
    assert "react max_steps=2" in out
    assert "75 % [30, 95]" in out
    assert "2 [0, ∞]" in out
    assert "How much worse they are there than in the search" in out
    assert "4 trials are complete, 1 failed." in out


@pytest.fixture
def everything(keep, found, tmp_path):
    """A study with trials of every kind: derived, reused, stopped, alike, near the front and beyond a bound."""
    rows = [(1, 2, 12), (0, 3, 12), (1, 3, 13), (1, 2, 12)]
    keep(
        found("direct", {"few_shot": 2}, search=[(0, 1, 4)] * 4, reused_from="old/7"),
        found("react", {"max_steps": 2}, search=rows, holdout=rows),
        found("react", {"max_steps": 1}, search=rows, derived_from=1),
        found("react", {"max_steps": 3}, search=[*rows[:3], (1, 2, 14)]),
        found("react", {"max_steps": 4}, search=[(1, 9, 4)] * 4, feasible=False),
        found("react", {"max_steps": 5}, search=rows[:2], stopped="beaten by trial 1"),
        extra="constraints: {latency_p95_s: '<= 8'}\n",
    )
    return tmp_path / "study.yaml"


def test_front_shows_trials_of_every_kind_as_such(tuner, said, everything):
    content = said("front", everything)
    assert content["trials"] == {
        "complete": 6,
        "pruned": 0,
        "failed": 0,
        "left_out": 0,
        "running": 0,
        "derived": 1,
        "reused": 1,
        "stopped": 1,
        "infeasible": 1,
    }
    shown = {point["trial"]: point for point in content["points"] if point["split"] == "search"}
    assert shown.keys() == {0, 1, 2}
    assert (shown[2]["derived_from"], shown[0]["reused_from"]) == (1, "old/7")
    assert shown[1]["group"] == shown[2]["group"] != ""
    assert shown[0]["group"] == ""
    assert [point["trial"] for point in content["near"]] == [3]
    (missed,) = content["infeasible"]
    assert (missed["trial"], missed["feasible"]) == (4, False)
    assert missed["excess"] == {"latency_p95_s": 1.0}
    out = tuner("front", everything).out
    assert "react max_steps=1 (derived from 1)" in out
    assert "direct few_shot=2 demonstrations=fixed (reused from old/7)" in out
    assert out.index("Front on 4") < out.index("Near the front") < out.index("Not within")
    assert "latency_p95_s 9, by 1" in out
    assert "alike" in out
    assert (
        "6 trials are complete (1 derived from others, 1 reused, 1 stopped early, 1 not within the constraints)."
        in out
    )


def test_nothing_within_the_constraints_shows_the_nearest_misses(tuner, keep, found, tmp_path):
    keep(
        found("direct", {}, search=[(1, 9, 4)] * 4, feasible=False),
        extra="constraints: {latency_p95_s: '<= 8'}\n",
    )
    out = tuner("front", tmp_path / "study.yaml").out
    assert "No trial is complete and within the constraints yet." in out
    assert "latency_p95_s 9, by 1" in out


@pytest.mark.parametrize("columns", [80, 100])
def test_front_fits_a_narrow_terminal_and_cuts_nothing(tuner, everything, monkeypatch, columns):
    monkeypatch.setattr("tuner.cli.output.width", lambda: columns)
    out = tuner("front", everything).out
    assert "…" not in out
    assert "react max_steps=1 (derived from 1)" in out
    assert "[30, 95]" in out
    *tables, _, _ = out.splitlines()  # the last two are sentences, which the terminal folds
    assert max(map(len, tables)) <= columns


def test_what_an_oracle_told_is_marked_wherever_it_is_shown(tuner, said, keep, found, tmp_path):
    keep(found("reflexion", {"feedback": "oracle"}, search=[(1, 1, 1)] * 4))
    path = tmp_path / "study.yaml"
    assert "reflexion feedback=oracle (oracle)" in tuner("front", path).out
    assert "reflexion (oracle)" in tuner("show", path, 0).out
    assert [point["oracle"] for point in said("front", path)["points"]] == [True]
    assert (
        "was told when its answer was right"
        in tuner("export", path, "--rule", "knee", "--out", tmp_path / "best.yaml").err
    )


def test_an_empty_front_says_so(tuner, said, keep, tmp_path):
    keep()
    assert tuner("front", tmp_path / "study.yaml").out.startswith("No trial is complete")
    assert said("front", tmp_path / "study.yaml")["points"] == []


def test_status(tuner, said, path):
    content = said("status", path)
    assert content["study"] == "kept"
    assert content["trials"] == {
        "complete": 4,
        "pruned": 0,
        "failed": 1,
        "running": 0,
        "waiting": 0,
    }
    assert content["replays"] == 1
    assert content["budget"]["trials"] == {"spent": 4, "limit": 9}
    assert content["budget"]["wall_clock_s"] == {"spent": 17.0, "limit": None}
    assert content["owner"] is None
    assert content["failures"] == {"3": "3 of 4 examples failed"}
    out = tuner("status", path).out
    assert "4 of 9" in out
    assert "3 of 4 examples failed" in out


def test_status_tells_what_trials_cost_nothing_and_what_is_paid_for(
    tuner, said, keep, found, tmp_path
):
    rows = [(1, 2, 1800)] * 4
    keep(
        found("direct", {}, search=rows, holdout=[(1, 2, 1800), (1, 2, None)]),
        found("react", {"max_steps": 3}, search=rows[:2], stopped="beaten by trial 0"),
        found("react", {"max_steps": 2}, search=[], derived_from=1),
        found("react", {"max_steps": 1}, search=[], reused_from="other/3"),
    )
    path = tmp_path / "study.yaml"
    text = path.read_text()
    limits = "{trials: 9, energy_wh: 8, cost_usd: 2, wall_clock: 60s}"
    path.write_text(text.replace("{trials: 9}", limits) + "sampler: {name: pooled}\n")
    content = said("status", path)
    assert [content[key] for key in ("replays", "derived", "reused", "stopped")] == [0, 1, 1, 1]
    budget = content["budget"]
    assert list(budget) == ["trials", "wall_clock_s", "questions", "gpu_hours", "energy_wh", "cost_usd", "tokens"]  # fmt: skip
    assert budget["questions"] == {"spent": 6, "limit": 36}
    paid = {"spent": 4.0, "limit": 8.0, "holdout": 1.0, "unknown_runs": 1}
    assert budget["energy_wh"] == paid
    assert budget["cost_usd"] == {"spent": None, "limit": 2.0, "holdout": None, "unknown_runs": 8}
    assert budget["tokens"]["spent"] == 8 * 35
    out = tuner("status", path).out
    for line in ("derived from others", "reused from other studies", "stopped early"):
        assert line in out
    assert (
        "4 of 8, 1 by the holdout pass; not known of 1: taken for the dearest of the trial" in out
    )
    assert "unknown of 2" in out
    assert "gpu_hours" not in out
    assert "replays" not in out


@pytest.mark.slow
def test_check_tells_what_serving_knobs_cost(tuner, make_study, stand_in):
    model = '{loopback: {model: openai/loopback, api_base: "", max_retries: 0}}'
    program = f"command: [{', '.join(stand_in.command)}], endpoint: completion"
    served = f"{{m: {{serve: vllm, model: a/b, {program}, prefix_cache: [true, false]}}}}"
    study = make_study(server="", replace=(model, served))
    ended = tuner("check", study.path)
    assert ended.code == 0, ended
    assert "m (prefix_cache: 2)" in ended.out
    assert "servers restart" in ended.out
    assert "about 1 ×, " in ended.out


def test_reasons_are_shown_as_they_are(tuner, keep, found, tmp_path):
    reason = "the log ends: (EngineCore pid=7) ERROR [core.py:12] no kernel for [/fp8]"
    keep(found("react", {"max_steps": 4}, search=[(1, 9, 40)], failure=reason))
    assert reason in tuner("status", tmp_path / "study.yaml").out


def test_show(tuner, said, path):
    content = said("show", path, 1)
    assert (content["trial"], content["state"], content["replay_of"]) == (1, "complete", None)
    assert content["config"]["params"]["max_steps"] == 2
    assert content["sources"] == {"energy": "cpu-estimate"}
    assert [example["split"] for example in content["examples"]] == ["search"] * 4 + ["holdout"] * 4
    example = content["examples"][0]
    assert (example["score"], example["energy"]["gross_j"], example["tokens_in"]) == (1.0, 12.0, 30)
    assert (example["used"]["llm_j"], example["used"]["tool_j"]) == (6.0, 6.0)
    assert content["passes"] == []
    out = tuner("show", path, 1).out
    assert "Trial 1 of kept" in out
    assert "cpu-estimate" in out
    assert "replay of" in tuner("show", path, 4).out
    assert "failed: 3 of 4 examples failed" in tuner("show", path, 3).out


def test_show_says_whose_runs_a_trial_has_and_why_it_is_no_point(tuner, said, everything):
    assert said("show", everything, 2)["derived_from"] == 1
    assert "derived from" in tuner("show", everything, 2).out
    assert "old/7" in tuner("show", everything, 0).out
    assert "latency_p95_s 9 is not <= 8" in tuner("show", everything, 4).out
    assert "beaten by trial 1" in tuner("show", everything, 5).out
    assert "75 % [30, 95] (search), 75 % [30, 95] (holdout)" in tuner("show", everything, 1).out


def test_show_says_what_was_seen_of_servers_and_what_makes_a_pass_doubtful(tuner, said, path):
    study = load_study(path)
    store = Store.open(study.storage_url, study.spec.name)
    energy = Reading(48.0, "nvml-counter", "GPU-1", seconds=8.0, warning="17 % apart")
    server = {"kv_bytes_mean": 1e6, "kv_bytes_max": 3e6, "kv_source": "analytic"}
    limited = {"client_limited": True, "reason": "its loop was late"}
    sitting = PassRecord(0, energy, 2.0, {"m": server}, {"m": "cleared"}, limited)
    assert store.claim("test", None)
    store.save_pass(store.trial_id(1), "search", sitting)
    store.release("test")
    store.close()
    out = tuner("show", path, 1).out
    assert "m: cleared" in out
    assert "KV 1 MB, at most 3 (analytic)" in out
    assert "17 % apart" in out
    assert "the client was the limit: its loop was late" in out
    (kept,) = said("show", path, 1)["passes"]
    assert (kept["split"], kept["idle_w"], kept["energy"]["gross_j"]) == ("search", 2.0, 48.0)


def test_trace(tuner, said, path):
    example = said("show", path, 1)["examples"][0]["example_id"]
    (run,) = said("trace", path, 1, example)
    assert [span["kind"] for span in run["spans"]] == ["llm", "tool"]
    assert run["checkpoints"] == [{"budget": 1, "answer": "Elm", "span_count": 2, "elapsed_s": 2.0}]
    out = tuner("trace", path, 1, example).out
    assert "answer 'Elm', score 1" in out
    assert "30 tokens in (0 cached), 5 out" in out
    assert "A village." in out
    assert "[slow]" in out
    assert "round 1: 2.00 s, 12 J so far; ended here it would answer 'Elm'" in out
    assert "12 J: 6 while the model worked, 6 while tools did (cpu-estimate)" in out


def test_doctor(tuner, said):
    content = said("doctor")
    assert all(row.keys() == {"what", "usable", "detail"} for row in content)
    found = {row["what"]: row for row in content}
    assert found["python"]["detail"] == sys.version.split()[0]
    engines = {f"engine {name}" for name in ENGINES}
    assert {"machine", "meter cpu_estimate", *engines} <= set(found)
    assert all(isinstance(row["usable"], bool) for row in content)
    assert "meter cpu_estimate" in tuner("doctor").out


def test_check(said, make_study):
    content = said("check", make_study().path)
    assert content.keys() == {
        "configs",
        "questions",
        "energy",
        "probes",
        "seconds_per_example",
        "joules_per_example",
        "restarts",
        "start_s",
        "at_once",
        "search_s",
        "search_wh",
        "trials",
        "ends_by",
        "predictions",
    }
    assert (content["configs"], content["energy"]) == (14, {"loopback": "none"})
    assert content["questions"] == {"search": 10, "holdout": 6}
    assert content["seconds_per_example"] > 0
    assert content["joules_per_example"] is None
    assert content["search_wh"] is None
    assert (content["trials"]["mean"], content["ends_by"]) == (6, "trials")
    assert content["predictions"].keys() == {"wall_clock", "tokens"}
    tokens = content["predictions"]["tokens"]
    assert tokens.keys() == {"unit", "trial", "search", "holdout", "limit"}
    assert tokens["trial"].keys() == {"mean", "low", "high"}


def test_check_for_people(tuner, make_study):
    limits = "{trials: 6, tokens: 1000000, plateau: 3}"
    ended = tuner("check", make_study(replace=("{trials: 6}", limits)).path)
    assert ended.code == 0
    assert "14 configs" in ended.out
    assert "holdout of 8 configs" in ended.out
    assert "1,000,000" in ended.out
    assert "about 6 trials, by its limit on trials; earlier, if the front gains" in ended.out
    assert "not metered" in ended.out


def test_export_writes_a_file_and_says_what_comes_next(tuner, path, tmp_path):
    out = tmp_path / "best.yaml"
    ended = tuner("export", path, "--rule", "max-accuracy", "--out", out)
    assert (ended.code, ended.out) == (0, f"{out}\n")
    assert f'next: tuner ask {out} "' in ended.err
    assert "measured on 4 holdout questions: accuracy 75 %" in ended.err
    assert load_agent_file(out).config.params["max_steps"] == 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_the_dashboard_serves_the_study_and_stops_at_ctrl_c(path):
    command = [sys.executable, "-c", "from tuner.cli import main; main()", "dashboard", path]
    with subprocess.Popen(
        [*command, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            address = process.stdout.readline().strip()
            listed = httpx.get(address.replace("/dashboard/", "/api/studies"), timeout=60)
            assert [study["study_name"] for study in listed.json()["study_summaries"]] == ["kept"]
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 130
            assert "interrupted" in process.stderr.read()
        finally:
            process.kill()
