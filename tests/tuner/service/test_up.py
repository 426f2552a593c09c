"""`tuner up` in a process of its own: the verbs that speak to it, and what is left of it when it is killed."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families


@pytest.mark.slow
def test_a_study_is_submitted_watched_and_decided_about(tuner, team, as_anna, tmp_path):
    path = team.study("watched", trials=4)
    submitted = tuner("submit", path)
    assert (submitted.code, submitted.out) == (0, "watched\n"), submitted.err
    followed = tuner("logs", "watched", "--follow")
    assert followed.code == 0
    lines = followed.out.splitlines()
    assert lines[0].endswith("queued: by anna")
    assert lines[1].endswith("running")
    assert lines[-1].endswith("done: all 4 trials are done")
    assert sum(": accuracy" in line for line in lines) >= 4
    assert any(" recommended: trial" in line for line in lines)
    listed = tuner("studies")
    assert "watched" in listed.out
    assert "4 of 4" in listed.out
    (content,) = [s for s in json.loads(tuner("studies", "--json").out) if s["name"] == "watched"]
    assert content["trials"]["complete"] >= 4
    assert content["front"] >= 1
    assert content["budget"]["tokens"]["spent"] > 0
    events = [json.loads(line) for line in tuner("logs", path, "--json").out.splitlines()]
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    assert next(e for e in events if e["event"] == "started")["study"] == "watched"
    asked = [e for e in events if e["event"] == "question_finished" and e["split"] == "search"]
    with team.client() as client:
        front = client.get("/studies/watched/front").json()
        assert front["points"] == next(e for e in events if e["event"] == "result")["front"]["points"]  # fmt: skip
        made = client.post("/studies/watched/export", json={"rule": "max-accuracy"}).json()
        proxy = client.post("/studies/watched/export", json={"format": "litellm-proxy"}).json()
    assert proxy["files"]["litellm.yaml"].startswith("# Models of trial")
    for name, text in made["files"].items():
        (tmp_path / name).write_text(text)
    answered = tuner("ask", tmp_path / made["file"], "What is six times seven?")
    assert answered.out == "forty-two\n"
    with sqlite3.connect(team.folder / "tuner-service.db") as database:
        query = "SELECT count(*) FROM tuner_example_runs r JOIN trials t USING (trial_id) JOIN studies s USING (study_id) WHERE s.study_name = 'watched' AND r.split = 'search' AND r.reused_s < r.latency_s"
        assert database.execute(query).fetchone() == (len(asked),)


def test_the_verbs_say_what_the_service_says(tuner, team, as_anna, monkeypatch):
    refused = tuner("cancel", "nobodys")
    assert (refused.code, refused.err.splitlines()[0]) == (2, "error: there is no study 'nobodys'")
    assert tuner("pause", "first").code == 2
    assert tuner("resume", "first").code == 2
    assert tuner("logs", "no/../such").code == 2
    monkeypatch.setenv("TUNER_TOKEN", team.tokens["bert"])
    assert "of anna" in tuner("submit", team.study("first", trials=9)).err
    monkeypatch.setenv("TUNER_TOKEN", "wrong")
    wrong = tuner("studies")
    assert wrong.code == 2
    assert "TUNER_TOKEN" in wrong.err
    monkeypatch.setenv("TUNER_SERVICE", "http://127.0.0.1:9")
    gone = tuner("studies")
    assert gone.code == 2
    assert "hint: start one with tuner up FILE" in gone.err
    monkeypatch.setenv("TUNER_SERVICE", "nonsense")
    assert tuner("studies").code == 2


def test_a_stream_goes_on_behind_the_last_event(team):
    with team.client() as client:
        whole = client.get("/studies/first/events", params={"follow": "false"})
        assert whole.headers["content-type"].startswith("text/event-stream")
        ids = [int(line[4:]) for line in whole.text.splitlines() if line.startswith("id: ")]
        assert ids == list(range(1, len(ids) + 1))
        rest = client.get("/studies/first/events", headers={"Last-Event-ID": str(ids[-3])})
        assert [int(line[4:]) for line in rest.text.splitlines() if line.startswith("id: ")] == ids[-2:]  # fmt: skip


def test_prometheus_can_read_the_metrics(team):
    with team.client() as client:
        text = client.get("/metrics").text
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["tuner_studies", ("state", "done")] >= 1
    assert samples["tuner_trials", ("state", "complete"), ("study", "first")] >= 3
    assert samples["tuner_questions_total", ("study", "first")] > 0
    assert ("tuner_slots", ("state", "free")) in samples


@pytest.mark.slow
def test_a_claim_is_measured_again_and_again(team, wait):
    with team.client() as client, team.client("bert") as other:
        asked = client.post("/studies/first/verifications", json={"rule": "knee", "every_s": 60})
        assert asked.status_code == 202, asked.text
        path = f"/studies/first/verifications/{asked.json()['id']}"

        def first_result():
            (found,) = client.get("/studies/first/verifications").json()
            return found["results"] and found["due"] > asked.json()["due"] and found

        found = wait(first_result)
        (result,) = found["results"]
        assert result["outcome"] in ("holds", "undecided"), result
        assert result["content"]["questions"] == 4
        assert 'tuner_verifications_total{outcome="' in client.get("/metrics").text
        assert '"event": "verified"' in client.get("/studies/first/events").text
        assert other.delete(path).status_code == 403
        assert client.delete(path).json()["due"] is None


def test_nobody_listens_to_other_machines_without_users(tuner, tmp_path, write_service):
    write_service(tmp_path, "http://127.0.0.1:9/v1", extra="host: 0.0.0.0")
    refused = tuner("up", tmp_path / "service.yaml")
    assert refused.code == 2
    assert "no token is asked of them" in refused.err
    assert "TLS belongs to a reverse proxy" in refused.err
    added = tuner("up", tmp_path / "service.yaml", "--add-user", "anna")
    assert added.code == 0
    assert len(added.out.strip()) > 40
    assert tuner("up", tmp_path / "service.yaml", "--add-user", "local").code == 2
    assert tuner("up", tmp_path / "service.yaml", "--remove-user", "anna").code == 0
    assert tuner("up", tmp_path / "service.yaml", "--remove-user", "anna").code == 2


def test_a_folder_has_one_service(tuner, team):
    refused = tuner("up", team.folder / "service.yaml")
    assert refused.code == 2
    assert "another service works in" in refused.err


@pytest.fixture
def follow():
    """Starts `tuner logs`, which lasts until the study ends, or the test."""
    started = []

    def start(address: str, name: str) -> "subprocess.Popen[str]":
        started.append(
            subprocess.Popen(
                [Path(sys.executable).parent / "tuner", "logs", name, "--follow", "--json"],
                env={**os.environ, "TUNER_SERVICE": address},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def kept(folder: Path, name: str) -> list[tuple[int, str, str, int]]:
    """Every finished example of a study."""
    with sqlite3.connect(f"file:{folder / 'tuner-service.db'}?mode=ro", uri=True) as database:
        query = "SELECT r.trial_id, r.split, r.example_id, r.repeat FROM tuner_example_runs r JOIN trials t USING (trial_id) JOIN studies s USING (study_id) WHERE s.study_name = ? AND r.reused_s < r.latency_s ORDER BY r.run_id"
        try:
            return database.execute(query, [name]).fetchall()
        except sqlite3.OperationalError:  # the first run makes the tables
            return []


@pytest.mark.slow
def test_killed_or_told_to_end_it_goes_on_where_it_was(
    start_up, serve, tmp_path, wait, write_service, write_study, pack_study, free_port, follow
):
    with serve("--delay-s", "0.05") as api_base:
        write_service(tmp_path, api_base, port=free_port)
        study = write_study(tmp_path / "mine", api_base, "long", trials=4)
        with start_up(tmp_path) as up:
            assert httpx.post(f"{up.address}/studies", json=pack_study(study)).status_code == 202
            following = follow(up.address, "long")
            wait(lambda: len(kept(tmp_path, "long")) >= 4)
            up.process.kill()
            up.process.wait()
        after_kill = kept(tmp_path, "long")
        with start_up(tmp_path) as up:
            wait(lambda: len(kept(tmp_path, "long")) >= len(after_kill) + 4)
            up.process.send_signal(signal.SIGTERM)
            assert up.process.wait(20) == 0
            assert not any("Traceback" in line for line in up.said), up.said
        after_term = kept(tmp_path, "long")
        assert after_term[: len(after_kill)] == after_kill
        with start_up(tmp_path) as up:
            states = f"{up.address}/studies/long"
            wait(lambda: httpx.get(states).json()["state"] == "done")
            found = httpx.get(states).json()
            heard = httpx.get(f"{states}/events").text
            followed, said = following.communicate(timeout=30)
    whole = kept(tmp_path, "long")
    assert whole[: len(after_term)] == after_term
    assert len(set(whole)) == len(whole)
    # Random trials ask every search question once, and no trial is left open.
    assert found["trials"]["running"] == 0
    assert found["budget"]["trials"]["spent"] == 4
    ids = [int(line[4:]) for line in heard.splitlines() if line.startswith("id: ")]
    assert ids == list(range(1, len(ids) + 1))
    asked = [json.loads(line[6:]) for line in heard.splitlines() if line.startswith("data: ")]
    assert (following.returncode, said) == (0, "")
    assert [json.loads(line)["id"] for line in followed.splitlines()] == ids  # over both ends
    told = [(e["trial"], e["example"]) for e in asked if e["event"] == "question_finished"]
    assert len(told) in range(len(whole) - 1, len(whole) + 1)  # one may be kept and not told of
