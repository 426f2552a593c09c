"""Several studies on the same servers: whose turn it is, by weights, with the real runs."""

import json
import time
from collections import Counter

import pytest

from tuner.study import run_study_among

ONE_CALL = "format_version: 1\nname: s\nworkflows:\n  cot: {max_tokens: {low: 16, high: 4000}}\n"


def finished(api, name):
    """When each question of a study was answered."""
    log = api.engine.folders.log(name)
    lines = map(json.loads, log.read_text().splitlines() if log.exists() else [])
    return [line["time"] for line in lines if line["event"] == "question_finished"]


def until(check, seconds=180.0):
    ends = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < ends
        time.sleep(0.05)
    return found


@pytest.mark.slow
def test_studies_share_an_endpoint_by_their_weights(open_service, serve):
    with serve("--delay-s", "0.05") as slow, open_service(run_study_among) as api:
        api.api_base = slow
        api.service.spec.models["lb"] = api.service.spec.models["lb"].model_copy(update={"api_base": slow})  # fmt: skip
        for name, priority in (("a", 1), ("b", 1), ("c", 3)):
            made = api.submit(name, priority=priority, trials=5000, space=ONE_CALL, replace=("examples: 8", "examples: 4"))  # fmt: skip
            assert made.status_code == 202, made.text
        began = until(lambda: all(finished(api, n) for n in "abc") and max(finished(api, n)[0] for n in "abc"))  # fmt: skip
        until(lambda: len([t for t in finished(api, "a") if t > began]) >= 40)
        busy, known = api.engine.slots()
        for name in "abc":
            api.ask("POST", f"/studies/{name}/cancel")
        counts = Counter({name: len([t for t in finished(api, name) if t > began]) for name in "abc"})  # fmt: skip
    assert (busy, known) == (2, 2)  # the server and its host
    assert 0.6 < counts["b"] / counts["a"] < 1.67, counts
    # Not 3, as it asks for its next evaluation once the one before has ended: meanwhile another has the server.
    assert 1.4 < counts["c"] / counts["a"] < 4.0, counts


@pytest.mark.slow
def test_a_verification_waits_for_its_servers_turn(open_service, serve, exported, api_base):
    with serve("--delay-s", "0.05") as slow, open_service(run_study_among) as api:
        api.api_base = slow
        api.service.spec.models["lb"] = api.service.spec.models["lb"].model_copy(update={"api_base": slow})  # fmt: skip
        api.submit("a", trials=5000, space=ONE_CALL)
        until(lambda: finished(api, "a"))
        folder = api.engine.folders.exports("a")
        folder.mkdir(parents=True)
        text = exported.read_text().replace(api_base, slow)
        text = text.replace("folder: study", f"folder: {exported.parent / 'study'}")
        (folder / "best.yaml").write_text(text)
        api.book.add_verification(
            study="a", user="local", rule="knee", file="best.yaml", questions=20, every_s=None
        )
        api.engine.wake()
        result = until(lambda: api.book.results(1))[0]
        times = [time.mktime(time.strptime(t[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone + float(t[19:23]) for t in finished(api, "a")]  # fmt: skip
        meanwhile = [t for t in times if result.started_s + 0.2 < t < result.started_s + result.took_s - 0.2]  # fmt: skip
        assert result.outcome in ("holds", "undecided"), result
        assert result.took_s > 1
        assert meanwhile == []  # nobody else asked the server
        count = len(times)
        until(lambda: len(finished(api, "a")) > count)  # and then the study goes on


@pytest.mark.slow
def test_a_service_and_its_studies_keep_everything_in_postgresql(open_service, postgres):
    url = postgres.make_database("service")
    with open_service(run_study_among, extra=f"storage: {url}") as api:
        for name in ("a", "b"):
            assert api.submit(name).status_code == 202
        for name in ("a", "b"):
            api.reach(name, "done", "failed")
            assert api.state(name) == "done", api.book.submission(name).reason
            told = api.ask("GET", f"/studies/{name}").json()
            assert told["budget"]["trials"] == {"spent": 3, "limit": 3}
            assert api.ask("GET", f"/studies/{name}/front").json()["points"]
    assert not list(api.service.path.parent.glob("*.db"))
