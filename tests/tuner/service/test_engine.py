"""What runs when, and what ends it: the engine with runs that do as they are told."""

import asyncio
import time
from contextlib import closing

import psutil
import pytest

from tuner.errors import UserError
from tuner.events import StudyEnded
from tuner.events import Talk
from tuner.service import engine as engine_module
from tuner.service.book import Book
from tuner.spec import load_study
from tuner.study import run_study


def until(check, seconds=180.0):
    """What is given once there is something."""
    ends = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < ends
        time.sleep(0.05)
    return found


class Runs:
    """Runs that last until they are told to end, and say how they were begun and ended."""

    def __init__(self):
        self.begun, self.ended, self.weights = [], [], {}
        self._over = {}
        self._loop = None
        self.slow_to_close_s = 0.0

    async def __call__(self, study, slots, *, weight, report):
        name = study.spec.name
        self._loop = asyncio.get_running_loop()
        self._over[name] = asyncio.Event()
        self.begun.append(name)
        self.weights[name] = weight
        report(Talk(f"{name} runs"))
        try:
            await self._over[name].wait()
            report(StudyEnded("all is done"))
        except asyncio.CancelledError:
            await asyncio.sleep(self.slow_to_close_s)
            raise
        finally:
            self.ended.append(name)

    def end(self, name):
        self._loop.call_soon_threadsafe(self._over[name].set)


@pytest.fixture
def runs():
    return Runs()


def test_so_many_run_and_the_others_wait_by_priority_then_age(open_service, runs):
    with open_service(runs, extra="parallel: 2") as api:
        for name, priority in (("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 2)):
            api.submit(name, priority=priority)
            if name in "ab":
                api.reach(name, "running")
        assert [api.state(name) for name in "abcde"] == ["running"] * 2 + ["queued"] * 3
        until(lambda: len(runs.begun) == 2)
        for name in "ab":
            # What a run leaves is not there, so that its result cannot be read.
            runs.end(name)
            api.reach(name, "failed", "done")
        api.reach("e", "running")
        api.reach("c", "running")
        until(lambda: runs.begun == ["a", "b", "e", "c"])
        assert runs.weights["e"] == 2.0


def test_whoever_has_least_under_way_comes_first(open_service, runs):
    with open_service(runs, extra="parallel: 2") as api:
        anna, bert = api.book.add_user("anna", 1.0), api.book.add_user("bert", 3.0)
        for name in ("a1", "a2", "a3"):
            api.submit(name, token=anna, priority=5)
            if name != "a3":
                api.reach(name, "running")
        api.submit("b1", token=bert)
        until(lambda: len(runs.begun) == 2)
        runs.end("a1")
        api.reach("b1", "running")
        assert api.state("a3") == "queued"
        until(lambda: "b1" in runs.weights)
        assert runs.weights["b1"] == 3.0
        assert runs.weights["a1"] == 5.0


def test_one_study_at_a_time_starts_servers_here(open_service, runs):
    own = ('lb: {model: openai/loopback, api_base: "', "here: {serve: llama.cpp, weights: smollm2-135m-instruct}} #")  # fmt: skip
    with open_service(runs) as api:
        for name in ("a", "b"):
            assert api.submit(name, replace=own).status_code == 202
        api.submit("c")
        api.reach("a", "running")
        api.reach("c", "running")
        assert api.state("b") == "queued"
        api.ask("POST", "/studies/a/cancel")
        api.reach("b", "running")


@pytest.mark.slow
def test_a_run_is_cancelled_once_and_closed_before_it_begins_again(open_service, runs):
    runs.slow_to_close_s = 1.5
    with open_service(runs) as api:
        api.submit("a")
        until(lambda: runs.begun == ["a"])
        api.ask("POST", "/studies/a/pause")
        api.ask("POST", "/studies/a/resume")
        assert api.state("a") == "queued"
        api.reach("a", "running")
        until(lambda: runs.begun == ["a", "a"])
        assert runs.ended == ["a"]


def test_what_ran_goes_on_at_the_next_start_before_what_waits(open_service, runs):
    with open_service(runs, extra="parallel: 1") as api:
        api.submit("a")
        until(lambda: runs.begun == ["a"])
        api.submit("b", priority=9)
    assert api.state("a") == "running"
    assert runs.ended == ["a"]
    again = Runs()
    with open_service(again, extra="parallel: 1") as api:
        until(lambda: again.begun == ["a"])
        assert api.state("b") == "queued"
        api.ask("POST", "/studies/a/pause")
        until(lambda: again.begun == ["a", "b"])


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (UserError("the server is gone", hint="start it"), "the server is gone (start it)"),
        (ValueError("a defect"), "ValueError('a defect')"),
    ],
)
def test_a_study_that_fails_says_why_and_others_go_on(open_service, runs, failure, said):
    async def run(study, slots, *, weight, report):
        if study.spec.name == "bad":
            raise failure
        await runs(study, slots, weight=weight, report=report)

    with open_service(run) as api:
        api.submit("bad")
        api.submit("good")
        api.reach("bad", "failed")
        assert api.book.submission("bad").reason == said
        api.reach("good", "running")
        assert api.ask("GET", "/healthz").status_code == 200


@pytest.mark.slow
def test_a_study_that_has_spent_its_budget_is_ended_whatever_its_run_thinks(
    open_service, runs, monkeypatch
):
    monkeypatch.setattr(engine_module, "LIMITS_S", 0.2)
    with open_service(runs) as api:
        api.submit("small")
        api.reach("small", "running")
        row = api.book.submission("small")
        run_study(load_study(api.engine.folders.submitted(row).with_name("as-run.yaml")))
        assert (
            api.state("small") == "running"
        )  # within its budget of trials, the run may take its time
        api.ask("POST", "/studies/small/pause")
        less = api.submit("small", replace=("budget: {", "budget: {tokens: 100, "))
        assert less.status_code == 202, less.text
        api.reach("small", "done")
        reason = api.book.submission("small").reason
        assert reason.startswith("the service ended it: ")
        assert reason.endswith(" of 100 tokens are spent")
        assert runs.ended == ["small", "small"]
        front = api.ask("GET", "/studies/small/front").json()
        assert front["points"]
        heard = api.ask("GET", "/studies/small/events").text
        assert '"event": "result"' in heard


@pytest.mark.slow
def test_a_claim_that_does_not_hold_any_more_is_seen_in_the_metrics(
    open_service, runs, exported, serve, api_base
):
    with open_service(runs) as api, serve("--text", "Answer: seventeen") as other:
        api.submit("small")
        folder = api.engine.folders.exports("small")
        folder.mkdir(parents=True)
        text = exported.read_text().replace(api_base, other)
        text = text.replace("folder: study", f"folder: {exported.parent / 'study'}")
        (folder / "best.yaml").write_text(text)
        for file in ("best.yaml", "gone.yaml"):
            api.book.add_verification(
                study="small", user="local", rule="knee", file=file, questions=None, every_s=None
            )
        api.engine.wake()
        until(lambda: len(api.book.latest_results()) == 2, 90)
        first, second = api.ask("GET", "/studies/small/verifications").json()
        assert [first["results"][0]["outcome"], second["results"][0]["outcome"]] == ["fails", "error"], (first, second)  # fmt: skip
        assert first["results"][0]["content"]["claims"][0]["name"] == "accuracy"
        assert "cannot be read" in second["results"][0]["content"]["error"]
        metrics = api.ask("GET", "/metrics").text
        assert 'tuner_verifications_total{outcome="fails",study="small"} 1.0' in metrics
        assert 'tuner_verification_latest{outcome="fails",study="small",verification="1"} 1.0' in metrics  # fmt: skip
        heard = api.ask("GET", "/studies/small/events?follow=false").text
        assert heard.count('"event": "verified"') == 2


def test_a_verification_ends_with_the_service(open_service, runs, exported, serve, api_base):
    with serve("--delay-s", "30") as slow:
        with open_service(runs) as api:
            api.submit("small")
            folder = api.engine.folders.exports("small")
            folder.mkdir(parents=True)
            text = exported.read_text().replace(api_base, slow)
            text = text.replace("folder: study", f"folder: {exported.parent / 'study'}")
            (folder / "best.yaml").write_text(text)
            made = api.book.add_verification(
                study="small", user="local", rule="knee", file="best.yaml", questions=None, every_s=None
            )  # fmt: skip
            api.engine.wake()
            children = until(lambda: [c for c in psutil.Process().children() if "tuner.service.verifying" in c.cmdline()])  # fmt: skip
            began_s = time.monotonic()
        assert time.monotonic() - began_s < 15
        assert not any(child.is_running() for child in children)
    with closing(Book(api.service.storage_url)) as book:
        assert book.results(made.id) == []
        assert book.verifications()[0].next_s == made.next_s  # it is due at the next start
