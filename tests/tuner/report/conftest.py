"""Studies with a point of every kind, their pages, and a Chromium that opens them."""

import json
from collections.abc import AsyncIterator
from collections.abc import Callable
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tuner.report import Report
from tuner.report import read_report
from tuner.report.page import write_page
from tuner.results import open_results
from tuner.spec import LoadedStudy
from tuner.spec import load_study
from tuner.study import run_study

HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser(chromium: dict[str, Any]) -> AsyncIterator[Any]:
    """One browser for the tests of a module; each opens contexts of its own."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(**chromium)
        yield opened
        await opened.close()


def rows(*scores: float, seconds: float, joules: float | None = 40.0) -> list[Any]:
    """A (score, seconds, joules) for each question, the seconds a little apart."""
    return [(score, seconds * (1 + place / 50), joules) for place, score in enumerate(scores)]


def every_kind(found: Any) -> Sequence[Any]:
    """Trials of every kind that a report tells apart."""
    good, fair, poor = (1, 1, 1, 0), (1, 1, 0, 0), (1, 0, 0, 0)
    quick = rows(*poor, seconds=1, joules=4)
    stopped = "trial 1 beats it, as 2 of 4 questions show"
    failure = "2 of 4 questions failed: <b>no</b> route"
    near = rows(*good, seconds=8.7, joules=39)
    oracle = rows(1, 1, 1, 1, seconds=14, joules=95)
    nearest = {"few_shot": 2, "demonstrations": "nearest"}

    def react(steps: int, search: Any, **more: Any) -> Any:
        return found("react", {"max_steps": steps}, search=search, **more)

    return (
        found("direct", {}, search=quick, holdout=quick),
        react(4, rows(*good, seconds=9), holdout=rows(*fair, seconds=9)),
        react(3, near, holdout=rows(*good, seconds=8), derived_from=1),
        react(2, rows(*fair, seconds=9.5, joules=60), reused_from="earlier/3"),
        react(1, rows(0, 0, 0, 0, seconds=9.9, joules=70)),
        react(5, rows(*good, seconds=30, joules=90), feasible=False),
        react(6, rows(0, 0, seconds=12, joules=80), stopped=stopped),
        found("reflexion", {"feedback": "oracle"}, search=oracle),
        found("direct", {"few_shot": 2}, search=rows(0, 0, seconds=1), failure=failure),
        found("direct", nearest, search=rows(*poor, seconds=2, joules=9)),
    )


@pytest.fixture
def write() -> Callable[[LoadedStudy, Path], Report]:
    """Writes a study's page, and gives its report."""

    def make(study: LoadedStudy, path: Path) -> Report:
        with closing(open_results(study)) as store:
            report = read_report(study, store)
            write_page(report, store, path)
        return report

    return make


@pytest.fixture
def kinds(keep: Callable[..., LoadedStudy], found: Any) -> LoadedStudy:
    """A study with a point of every kind; its folder may be written to."""
    return keep(*every_kind(found), extra='constraints: {latency_p50_s: "<= 20"}\n')


@pytest.fixture
def hostile(tmp_path: Path, serve: Any) -> LoadedStudy:
    """A study whose questions, answers and model all try to be markup."""
    rows = [{"question": f"{n} {HOSTILE}?", "answer": HOSTILE} for n in range(6)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "space.yaml").write_text(
        "format_version: 1\nname: s\nworkflows: {direct: {max_tokens: [16, 32, 48]}}\n"
    )
    with serve("--text", f"Answer: {HOSTILE}") as address:
        (tmp_path / "study.yaml").write_text(
            "format_version: 1\nname: hostile\n"
            "task: {name: jsonl, path: q.jsonl, examples: 3, holdout: 2}\n"
            "search_space: space.yaml\n"
            f'models: {{m: {{model: openai/loopback, api_base: "{address}"}}}}\n'
            "objectives: [accuracy, tokens_total]\nsampler: {name: grid}\nbudget: {trials: 3}\n"
        )
        study = load_study(tmp_path / "study.yaml")
        run_study(study)
    return study
