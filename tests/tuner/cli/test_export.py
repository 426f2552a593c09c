"""`tuner export`: what it says of a rule's choice, and what it refuses."""

import pytest
import yaml

from tuner.rules import RULES
from workflows.config import load_agent_file


@pytest.fixture
def path(keep, found, tmp_path):
    """A study with a quick point and a good one."""
    keep(
        found("direct", {}, search=[(0, 1, 4)] * 4, holdout=[(0, 1, 4), (1, 1, 4)] * 2),
        found("react", {"max_steps": 2}, search=[(1, 9, 40)] * 4, holdout=[(1, 9, 40)] * 4),
    )
    return tmp_path / "study.yaml"


def test_help_shows_how_every_rule_is_written(tuner):
    shown = "".join(tuner("export", "--help").out.split())
    for kind in RULES.values():
        assert kind.form in shown


def test_it_says_why_and_writes_it_down(tuner, path, tmp_path):
    out = tmp_path / "best.yaml"
    ended = tuner("export", path, "--rule", "slo:latency_p50_s<=2", "--out", out)
    assert (ended.code, ended.out) == (0, f"{out}\n")
    why = load_agent_file(out).provenance["why"]
    assert (
        "trial 0 has the highest accuracy of 1 point to meet latency_p50_s <= 2 by estimate" in why
    )
    assert why.endswith("; there is no other")
    assert f"slo:latency_p50_s<=2: {why}\n" in ended.err
    assert "trial 0: direct few_shot=0\n" in ended.err


def test_where_no_point_meets_the_conditions_nothing_is_written(tuner, path, tmp_path):
    out = tmp_path / "best.yaml"
    ended = tuner("export", path, "--rule", "slo:latency_p50_s<=0.5", "--out", out)
    assert (ended.code, ended.out) == (2, "")
    assert "on 4 holdout questions; the nearest is trial 0: latency_p50_s is 1 s" in ended.err
    assert not out.exists()


def test_all_writes_every_point_and_says_which_are_recommended(tuner, path, tmp_path):
    ended = tuner("export", path, "--all", "--out", tmp_path / "front")
    files = sorted(str(file) for file in (tmp_path / "front").glob("*.yaml"))
    assert (ended.code, sorted(ended.out.split())) == (0, files)
    assert "trial-1.yaml: react max_steps=2   ← max-accuracy\n" in ended.err
    assert "trial-0.yaml: direct few_shot=0   ← knee, min-energy, min-latency\n" in ended.err


@pytest.mark.parametrize(
    "contradiction",
    [("--all", "--rule", "knee"), ("--all", "--format", "litellm-proxy")],
)
def test_what_contradicts_itself_is_refused(tuner, path, tmp_path, contradiction):
    ended = tuner("export", path, *contradiction, "--out", tmp_path / "out")
    assert (ended.code, ended.out) == (2, "")
    assert "error: --all writes" in ended.err
    assert "leave one of them out" in ended.err
    assert not (tmp_path / "out").exists()


def test_the_models_for_litellms_proxy_hold_no_key(tuner, path, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "sk-do-not-tell")
    out = tmp_path / "litellm.yaml"
    ended = tuner("export", path, "--format", "litellm-proxy", "--out", out)
    assert (ended.code, ended.out) == (0, f"{out}\n")
    assert f"next: litellm --config {out}\n" in ended.err
    (model,) = yaml.safe_load(out.read_text())["model_list"]
    assert model["litellm_params"]["api_key"] == "os.environ/SECRET_KEY"
    assert "sk-do-not-tell" not in out.read_text() + ended.err
