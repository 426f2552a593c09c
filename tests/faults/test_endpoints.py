"""Servers that fail in every way: a failure of one question counts, a server that keeps failing is waited for at no cost."""

import asyncio
import gc
from collections import deque
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tuner.events import ExampleFinished
from tuner.events import Talk
from tuner.spec import LoadedStudy
from tuner.spec import load_study
from tuner.store import Store
from tuner.study import run_study
from workflows.config import ModelSettings
from workflows.llm import ChatClient
from workflows.llm import Request
from workflows.trace import Trace

ONE = 'api_base: "{}", max_retries: 0'
SPACE = f"""\
format_version: 1
name: one call a question
workflows:
  cot: {{max_tokens: {list(range(64, 128))}}}
"""
GOOD_FOR = 3
"""Questions that a server answers before it fails."""

Make = Callable[..., LoadedStudy]


@dataclass(frozen=True)
class Spent:
    """What a study has spent."""

    search_s: float
    tokens: float
    runs: int
    trials: int


def opened(study: LoadedStudy) -> Store:
    return Store.open(study.storage_url, study.spec.name)


def spent(study: LoadedStudy) -> Spent:
    store = opened(study)
    row, amounts = store.row(), store.spent()
    trials = len(store.trials())
    store.close()
    assert row is not None
    return Spent(
        row.search_s,
        sum(each.amounts["tokens"].total for each in amounts),
        sum(each.runs for each in amounts),
        trials,
    )


def states(study: LoadedStudy) -> list[tuple[str, str | None]]:
    store = opened(study)
    found = [(trial.state, trial.failure) for trial in store.trials()]
    store.close()
    return found


def runs(study: LoadedStudy, split: str = "search") -> list[Any]:
    store = opened(study)
    found = [run for trial in store.trials() for run in store.runs(trial.trial_id, split)]
    store.close()
    return found


@pytest.fixture(scope="module", autouse=True)
def warm(api_base: str) -> None:
    """One call, so that no study's short patience goes into what a first call imports."""
    settings = ModelSettings(model="openai/loopback", api_base=api_base)
    request = Request(prompt="Hello", max_tokens=1)
    asyncio.run(ChatClient(settings).complete(request, Trace()))


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Sockets that litellm leaves to the garbage collector when a reply breaks off are of this test, and not of a later one."""
    yield
    gc.collect()


@pytest.fixture
def make(make_study: Any) -> Make:
    """Writes a study each of whose questions is one call, which is given up soon."""

    def make(address: str, *, racing: str = "false", extra: str = "", **how: Any) -> LoadedStudy:
        study = make_study(server=address, space=SPACE, **how)
        given = f'api_base: "{address}", timeout_s: 3, max_retries: 0'
        text = study.path.read_text().replace(ONE.format(address), given)
        text = text.replace("[accuracy, tokens_total]", "[accuracy, latency_p50_s]")
        study.path.write_text(f"{text}racing: {racing}\n{extra}")
        return load_study(study.path)

    return make


class Nurse:
    """Puts a server that is well in the place of one that fails, and looks what the study spends meanwhile."""

    def __init__(self, study: LoadedStudy, server: Any, *then: str) -> None:
        """`then` are the faults that the server has later, each once it has answered a few questions."""
        self.said: list[str] = []
        self.at_waits: list[Spent] = []
        self.at_returns: list[Spent] = []
        self._study = study
        self._server = server
        self._then = deque(then)

    def __call__(self, event: object) -> None:
        if not isinstance(event, Talk):
            return
        self.said.append(event.text)
        if "the study waits" in event.text:
            self.at_waits.append(spent(self._study))
            self._server.kill()
            script = fails_with(self._then.popleft()) if self._then else ()
            self._server.restart(*script)
        if "answers again" in event.text:
            self.at_returns.append(spent(self._study))

    def require_pauses(self, count: int = 1) -> None:
        """The study waited so often, said so, spent nothing meanwhile, and went on by itself."""
        assert len(self.at_waits) == count, self.said
        assert self.at_waits == self.at_returns
        waits = [text for text in self.said if "the study waits" in text]
        assert all(self._server.address in text for text in waits)
        assert all("waiting costs nothing of its budget" in text for text in waits)


def fails_with(fault: str) -> tuple[str, ...]:
    """Arguments of a server that answers a short call and a few questions, and then fails for good."""
    return ("--script", "200", *["200"] * GOOD_FOR, *[fault] * 200)


MESSAGES = {
    "hang": "no complete reply within 3 s",
    "drip": "",  # whichever is first: our patience, or litellm's with a text that repeats itself
    "bytes": "no complete reply within 3 s",
    "500": "scripted Internal Server Error",
    "429:1": "scripted Too Many Requests",
    "cut": "",
    "garbage": "",
    "flood": "",
    "no-model": "the server has no such model",
}


@pytest.mark.slow
def test_a_failure_of_a_server_that_is_well_is_a_failed_example(make: Make, served: Any) -> None:
    # The warm-up call has the first; after each failure the server is asked something short, and is well.
    script = [entry for fault in MESSAGES for entry in ("200", fault, "200")]
    sizes = ("examples: 10, holdout: 6", "examples: 20, holdout: 2")
    study = make(
        served("--script", "200", *script).address,
        trials=1,
        questions=22,
        replace=sizes,
        extra="max_failure_rate: 0.5\n",
    )
    said: list[str] = []
    run_study(study, report=lambda event: said.append(str(event)))
    assert states(study) == [("complete", None)]
    asked = sorted(runs(study), key=lambda run: run.started_s)
    failed = [run for run in asked if run.error]
    assert len(asked) == 20
    for run, message in zip(failed, MESSAGES.values(), strict=True):
        assert message in run.error
        assert run.score == 0
        assert run.latency_s > 0
        assert len(run.spans) == 1
    store = opened(study)
    (trial,) = store.trials()
    store.close()
    assert trial.values is not None
    assert trial.values["accuracy"] == np.mean([run.score for run in asked])
    assert spent(study).runs == 20 + 2
    assert not any("the study waits" in text for text in said)


@pytest.mark.slow
def test_what_is_no_text_is_replaced_and_a_refusal_that_says_when_to_come_again_is_heeded(
    make: Make, served: Any
) -> None:
    server = served("--script", "200", "200", "latin", "200", "nul", "200", "429:1")
    study = make(server.address, trials=1)
    text = study.path.read_text().replace("timeout_s: 3, max_retries: 0", "max_retries: 2")
    study.path.write_text(text)
    run_study(load_study(study.path))
    assert [run.error for run in runs(study)] == [None] * 10
    outputs = {run.spans[0].output.strip() for run in runs(study)}
    assert {"caf\ufffd au lait", "one\ufffdtwo\ufffdthree"} <= outputs
    refused = [
        run
        for run in runs(study)
        if any("Too Many Requests" in (span.error or "") for span in run.spans)
    ]
    assert [run.latency_s > 1 for run in refused] == [True]


LASTING = ("hang", "drip", "500", "429:600", "cut", "garbage", "flood", "no-model")


@pytest.mark.slow
def test_a_server_that_keeps_failing_pauses_the_study_until_it_is_well(
    make: Make, served: Any
) -> None:
    server = served(*fails_with(LASTING[0]))
    study = make(server.address, trials=4)
    nurse = Nurse(study, server, *LASTING[1:])
    run_study(study, report=nurse)
    nurse.require_pauses(len(LASTING))
    assert states(study) == [("complete", None)] * 4
    assert [run.error for run in runs(study)] == [None] * 40
    extras = runs(study, "edge")  # what the failures took is kept, and is not the configs'
    assert len(extras) == len(LASTING)
    assert all(run.error for run in extras)


INSTEAD = {
    "refuses": ((), "nothing answers at"),
    "another model": (("--model", "other"), "does not serve openai/loopback; it serves: other"),
    "list hangs": (("--probe", "hang"), "nothing answers at"),
}


@pytest.mark.slow
@pytest.mark.parametrize("instead", INSTEAD)
def test_a_server_that_goes_or_comes_back_as_another_pauses_the_study(
    make: Make, served: Any, instead: str
) -> None:
    server = served()
    study = make(server.address, trials=2)
    nurse = Nurse(study, server)
    arguments, message = INSTEAD[instead]
    answers = 0

    def report(event: object) -> None:
        nonlocal answers
        answers += isinstance(event, ExampleFinished)
        if isinstance(event, ExampleFinished) and answers == GOOD_FOR:
            server.kill()
            if arguments:
                server.restart(*arguments)
        nurse(event)

    run_study(study, report=report)
    nurse.require_pauses()
    assert any(message in text and "the study waits" in text for text in nurse.said)
    assert [run.error for run in runs(study)] == [None] * 20


@pytest.mark.slow
def test_eight_questions_that_fail_at_once_are_one_pause(make: Make, served: Any) -> None:
    server = served(*fails_with("500"), "--delay-s", "0.02")
    study = make(server.address, trials=2, extra="load: {concurrency: 8}\n")
    nurse = Nurse(study, server)
    run_study(study, report=nurse)
    nurse.require_pauses()
    assert states(study) == [("complete", None)] * 2
    assert [run.error for run in runs(study)] == [None] * 20


@pytest.mark.slow
def test_a_trial_that_races_waits_as_any_other(make: Make, served: Any) -> None:
    server = served("--script", "200", *["200"] * 33, *["500"] * 200)
    sizes = ("examples: 10, holdout: 6", "examples: 30, holdout: 2")
    study = make(
        server.address, trials=3, racing="{block: 5}", questions=32, replace=sizes
    )  # fmt: skip
    nurse = Nurse(study, server)
    run_study(study, report=nurse)
    nurse.require_pauses()
    assert {state for state, _ in states(study)} == {"complete"}
    assert not [run.error for run in runs(study) if run.error]


@pytest.mark.slow
def test_a_server_that_comes_back_without_what_the_study_needs_is_looked_at_again(
    make: Make, served: Any
) -> None:
    first, second = served(), served()
    study = make(first.address, trials=1, replace=("trials: 1", "trials: 1, tokens: 1000000"))
    ends = ", ".join(f'{{api_base: "{each.address}"}}' for each in (second, first))
    text = study.path.read_text().replace(f'api_base: "{first.address}"', f"endpoints: [{ends}]")
    study.path.write_text(text)
    second.kill()  # where the study would begin
    said: list[str] = []

    def report(event: object) -> None:
        if not isinstance(event, Talk):
            return
        said.append(event.text)
        if "goes on with 1 of 2 servers" in event.text:
            second.restart("--no-usage")
            first.kill()
        if "reports no token counts" in event.text:
            second.kill()
            second.restart()

    run_study(load_study(study.path), report=report)
    assert any("the study waits" in text for text in said), said
    assert sum("reports no token counts" in text for text in said) == 1
    assert any(f"{second.address} answers again" in text for text in said)
    assert [run.error for run in runs(study)] == [None] * 10
