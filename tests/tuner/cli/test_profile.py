"""`tuner profile` end to end against a loopback server, interrupted and gone on with, and what it refuses."""

import json
import signal
import subprocess
import sys
import time

import pytest

from tuner.profile import as_profile
from tuner.store import Store

SPACE = """\
format_version: 1
name: small
workflows:
  direct: {few_shot: 0}
  cot: {max_tokens: 64}
  react: {max_steps: 2, thoughts: false}
"""


@pytest.fixture
def path(make_study):
    return make_study(space=SPACE).path


def trials(study):
    store = Store.open(study.storage_url, as_profile(study, 1).spec.name)
    found = [(trial.state, trial.config.workflow) for trial in store.trials()]
    runs = {trial.config.workflow: store.runs(trial.trial_id, "search") for trial in store.trials()}
    store.close()
    return found, runs


@pytest.mark.slow
def test_a_profile_measures_every_config_once_and_shows_every_figure(tuner, make_study, tmp_path):
    study = make_study(space=SPACE)
    ended = tuner("profile", study.path, "--compare", "kim2025", "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    found, runs = trials(study)
    assert found == [("complete", "direct"), ("complete", "cot"), ("complete", "react")]
    assert all(len(each) == 10 for each in runs.values())
    for figure in ("Figure 4", "Figure 17", "Table III", "Beside the paper's ratios"):
        assert figure in ended.out
    assert "3 configs measured: the whole search space" in ended.err
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"profile.json", "profile.csv", "profile.html"}
    again = tuner("profile", study.path, "--json")
    assert "warming up" not in again.err
    document = json.loads(again.out)
    written = json.loads((tmp_path / "out" / "profile.json").read_text())
    written.pop("beside")
    assert document == written
    (react,) = [row for row in document["figures"]["4"]["rows"] if row["workflow"] == "react"]
    assert react["n"] == 10
    assert react["values"]["llm_calls"]["value"] >= 1
    energy = document["figures"]["III"]["rows"][0]["values"]["energy_wh"]
    assert energy == {"value": None, "why": "no energy is metered for this model"}


@pytest.mark.slow
def test_a_profile_leaves_the_studys_own_results_alone(tuner, make_study):
    study = make_study(space=SPACE)
    assert tuner("profile", study.path).code == 0
    front = tuner("front", study.path)
    assert (front.code, front.out) == (2, "")


@pytest.mark.slow
def test_a_profile_that_was_killed_goes_on_where_it_stopped(make_study, serve, tuner):
    with serve("--delay-s", "0.1") as address:
        study = make_study(space=SPACE, server=address)
        command = [sys.executable, "-P", "-c", "from tuner.cli import main; main()"]
        with subprocess.Popen(
            [*command, "profile", str(study.path)], stderr=subprocess.PIPE, text=True
        ) as process:
            done = 0
            for _ in range(600):
                time.sleep(0.05)
                try:
                    found, runs = trials(study)
                except Exception:
                    continue
                done = sum(map(len, runs.values()))
                if done >= 12:
                    break
            process.send_signal(signal.SIGKILL)
        before = {
            (workflow, run.example_id): run.latency_s
            for workflow, each in runs.items()
            for run in each
        }
        assert 12 <= done < 30
        assert tuner("profile", study.path).code == 0
    found, runs = trials(study)
    assert [state for state, _ in found] == ["complete"] * 3
    after = {
        (workflow, run.example_id): run.latency_s for workflow, each in runs.items() for run in each
    }
    assert len(after) == 30
    assert before.items() <= after.items()


@pytest.mark.slow
def test_rates_are_measured_under_their_own_load(tuner, make_study):
    study = make_study(space=SPACE, extra="profile: {rates: {cot: [40, 80]}}\n")
    ended = tuner("profile", study.path, "--json")
    assert ended.code == 0, ended.err
    rows = json.loads(ended.out)["figures"]["11"]["rows"]
    assert [(row["workflow"], row["keys"]["rate_qps"]) for row in rows] == [
        ("cot", 40),
        ("cot", 80),
    ]
    assert all(row["values"]["throughput_qps"]["value"] > 0 for row in rows)
    assert rows[0]["values"]["latency_p95_s"]["why"] == "n = 10, and it takes 20"


QUESTIONS = "{name: jsonl, path: questions.jsonl, examples: 10, holdout: 6}"


@pytest.mark.slow
def test_the_knee_of_a_server_is_found_and_not_looked_for_again(tuner, make_study, serve):
    with serve("--delay-s", "0.04", "--places", "2") as server:
        study = make_study(
            server=server,
            space="format_version: 1\nname: small\nworkflows:\n  direct: {few_shot: 0}\n",
            extra="profile: {rates: {direct: knee}}\n",
            replace=(QUESTIONS, "{name: villages, examples: 24, holdout: 0}"),
        )
        ended = tuner("profile", study.path, "--json")
        assert ended.code == 0, ended.err
        table = json.loads(ended.out)["figures"]["11"]
        rates = [row["keys"]["rate_qps"] for row in table["rows"]]
        assert rates == sorted(rates)
        assert len(rates) >= 4
        assert table["notes"][0].startswith("direct on loopback: the knee is at ")
        found = float(table["notes"][0].partition("knee is at ")[2].split()[0])
        # Two places of 60 ms each are 33 a second; 24 questions put it too high, a busy machine too low.
        assert 0.5 < found < 100
        assert "100 questions would be enough" in table["notes"][0]
        again = tuner("profile", study.path, "--json")
        assert "warming up" not in again.err
        assert json.loads(again.out)["figures"]["11"] == table


@pytest.mark.slow
def test_a_budget_that_its_checkpoints_cannot_tell_is_measured_itself(tuner, make_study):
    # The loopback model never acts, so that each budget ends with one more call for the answer.
    space = SPACE.replace("max_steps: 2,", "max_steps: [1, 2], at_budget: answer,")
    study = make_study(space=space)
    ended = tuner("profile", study.path, "--json")
    assert ended.code == 0, ended.err
    found, _ = trials(study)
    assert [workflow for _, workflow in found] == ["direct", "cot", "react", "react"]
    rows = json.loads(ended.out)["figures"]["14"]["rows"]
    assert [(row["keys"]["budget"], row["derived"]) for row in rows] == [(1, False), (2, False)]
    assert all(row["values"]["accuracy"]["value"] is not None for row in rows)


@pytest.mark.parametrize(
    ("arguments", "extra", "message"),
    [
        (["--compare", "kim2026"], "", "no figures of 'kim2026' are known\nhint: known: kim2025"),
        (["--out", "study.yaml"], "", "--out study.yaml: is a file"),
        (
            [],
            "profile: {rates: {lats: [1]}}\n",
            "study.yaml:10: profile.rates.lats: is not in the search space",
        ),
        ([], "profile: {rates: {cot: [0]}}\n", "profile.rates.cot"),
        ([], "profile: {rates: {cot: knee}}\n", "10 questions have none"),
        ([], "profile: {rate: {cot: [1]}}\n", "profile.rate: unknown key"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(
    tuner, path, monkeypatch, arguments, extra, message
):
    path.write_text(path.read_text() + extra)
    monkeypatch.chdir(path.parent)
    ended = tuner("profile", "study.yaml", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert not (path.parent / "tuner.db").exists()


def test_without_plotly_the_page_is_refused_before_anything_runs(tuner, path, monkeypatch):
    monkeypatch.setattr("tuner.profile.page.find_spec", lambda name: None)
    ended = tuner("profile", path, "--out", path.parent / "out")
    assert ended.code == 2
    assert "hint: pip install 'tuner[report]'" in ended.err
    assert not (path.parent / "tuner.db").exists()
