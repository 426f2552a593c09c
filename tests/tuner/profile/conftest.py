"""Profiles from given records: two questions or more, a second of model and half a second of tool a call."""

import asyncio
import json
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from tuner.profile import Profile
from tuner.profile import evaluation
from tuner.profile.evaluation import Evaluation
from tuner.profile.evaluation import Query
from tuner.profile.evaluation import at_budget
from tuner.profile.figures import FIGURES
from tuner.profile.found import Found
from tuner.profile.plan import budgets
from tuner.profile.plan import make_plan
from tuner.records import ExampleRun
from tuner.records import Reading
from tuner.spec import LoadedStudy
from tuner.spec import load_study
from workflows.base import Checkpoint
from workflows.config import AgentConfig
from workflows.trace import Span

SPACE = """\
format_version: 1
name: s
workflows:
  direct: {few_shot: [0, 1, 2]}
  cot: {}
  react: {few_shot: [0, 1], max_steps: [1, 2, 4]}
  reflexion: {max_trials: 3, feedback: oracle}
  lats: {children: [1, 2], iterations: 4}
"""
STUDY = """\
format_version: 1
name: small
task: {{name: jsonl, path: questions.jsonl, documents: pages.jsonl, examples: {n}, holdout: 0, tool_delay_s: 0.5}}
search_space: space.yaml
models:
  m: {{serve: llama.cpp, weights: smollm2-135m-instruct, prefix_cache: [true, false]}}
objectives: [accuracy, latency_mean_s]
budget: {{trials: 1}}
"""

CALLS = {"direct": (1, 0), "cot": (1, 0), "react": (3, 2), "reflexion": (6, 4), "lats": (12, 8)}
"""Model calls and tool calls of a question."""

MakeStudy = Callable[..., LoadedStudy]
MakeProfile = Callable[..., Profile]


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> MakeStudy:
    """Writes the study above; `replace` changes a text in it or in its space."""

    def make(*replace: tuple[str, str], n: int = 2) -> LoadedStudy:
        folder = tmp_path_factory.mktemp("study")
        texts = {"study.yaml": STUDY.format(n=n), "space.yaml": SPACE}
        for old, new in replace:
            assert sum(text.count(old) for text in texts.values()) == 1, old
            texts = {name: text.replace(old, new) for name, text in texts.items()}
        for name, text in texts.items():
            (folder / name).write_text(text)
        rows = [{"id": f"q{k}", "question": f"Where is {k}?", "answer": "Elm"} for k in range(n)]
        (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (folder / "pages.jsonl").write_text(json.dumps({"title": "Elm", "text": "It is."}))
        return load_study(folder / "study.yaml")

    return make


def run_of(config: AgentConfig, number: int, question: str, *, cached: bool) -> ExampleRun:
    """A question: calls of 1 s with the cache, 2 s without, of which all but 0.5 s are prefill; tools of 0.5 s; 10 W."""
    llm, tool = CALLS[config.workflow]
    call_s, spans, now_s = (1.0 if cached else 2.0), [], 0.0
    for index in range(llm):
        spans.append(
            Span(
                "llm",
                "m",
                now_s,
                now_s + call_s,
                f"Question: {question}",
                "yes",
                call_s - 0.5,
                20,
                5,
                10 if cached else 0,
            )
        )
        now_s += call_s
        if index < tool:
            spans.append(Span("tool", "search", now_s, now_s + 0.5, "Elm", "It is."))
            now_s += 0.5
    latency_s = now_s + 0.25 * number  # what the workflow itself took
    rounds = {"react": "max_steps", "reflexion": "max_trials", "lats": "iterations"}
    budget = int(config.params.get(rounds.get(config.workflow, ""), 0))
    right = number % 2 == 0
    return ExampleRun(
        example_id=f"q{number}",
        repeat=0,
        answer="Elm" if right else "Oak",
        score=float(right),
        error=None,
        latency_s=latency_s,
        energy=Reading(10.0 * latency_s, "nvml-counter", "GPU-0", seconds=latency_s),
        tokens_in=20 * llm,
        tokens_out=5 * llm,
        tokens_cached=10 * llm if cached else 0,
        cost_usd=None,
        llm_calls=llm,
        tool_calls=tool,
        llm_s=call_s * llm,
        tool_only_s=0.5 * tool,
        started_s=0.0,
        checkpoints=tuple(
            Checkpoint(
                b, "Elm" if right and b > 1 else "", len(spans) * b // budget, now_s * b / budget
            )
            for b in range(1, budget + 1)
        ),
        spans=tuple(spans),
    )


def one_after_another(runs: Sequence[ExampleRun]) -> list[ExampleRun]:
    """The runs on one time axis, with the samples of a constant 10 W."""
    placed, now_s = [], 0.0
    for run in runs:
        end_s = now_s + run.latency_s
        samples = tuple((t, 10.0 * t) for t in (now_s + run.latency_s / 2, end_s))
        placed.append(replace(run, started_s=now_s, samples=samples))
        now_s = end_s
    return placed


def evaluation_of(
    study: LoadedStudy,
    config: AgentConfig,
    number: int,
    *,
    servers: Mapping[str, Any] | None = None,
) -> Evaluation:
    """A measured config, all of whose questions went as `run_of` has them."""
    task = study.load_task()
    cached = "false" not in config.model
    runs = one_after_another(
        [
            run_of(config, int(example.id[1:]), example.question, cached=cached)
            for example in task.search
        ]
    )
    return Evaluation(
        trial=number,
        config=config,
        label=study.label(config),
        derived=False,
        queries=tuple(
            Query(run.example_id, run.score, run.latency_s, wh, 25 * run.llm_calls)
            for run, wh in zip(runs, evaluation.energies_wh(runs), strict=True)
        ),
        runs=tuple(runs),
        extras=(),
        servers=servers or {},
        load={},
        source="nvml-counter",
        problem=None,
        stderr_share=None,
    )


def _unchanged(evaluation: Evaluation) -> Evaluation:
    return evaluation


@pytest.fixture(scope="session")
def profiled(study: MakeStudy) -> MakeProfile:
    """Profiles of the study above, each made once; `change` has the last word on each evaluation."""

    @cache
    def make(
        *replace: tuple[str, str],
        n: int = 2,
        change: Callable[[Evaluation], Evaluation] = _unchanged,
        at_rates: tuple[float, ...] = (),
    ) -> Profile:
        loaded = study(*replace, n=n)
        task, plan = loaded.load_task(), make_plan(loaded.space, loaded.models)
        measured = tuple(
            change(evaluation_of(loaded, config, number))
            for number, config in enumerate(plan.configs)
        )

        async def derive() -> list[Evaluation]:
            return [
                await at_budget(loaded, task, each, budget)
                for each in measured
                if each.queries
                for budget in budgets(loaded.space, each.config)
            ]

        found = Found(
            study=loaded,
            task=task,
            plan=plan,
            measured=measured,
            derived=tuple(asyncio.run(derive())),
            rates={
                rate: tuple(each for each in measured if each.workflow == "react")
                for rate in at_rates
            },
            provenance={"machine": "Linux", "python": "3.11", "versions": {}, "models": {}},
        )
        return Profile(
            study="small",
            task=loaded.spec.task["name"],
            tool_delay_s=0.5,
            load={"concurrency": 1},
            cache="isolated",
            rule=plan.rule(),
            measured=found.measured,
            derived=found.derived,
            shown={name: each for name in plan.centres if (each := found.shown(name)) is not None},
            tables=tuple(fill(found) for fill in FIGURES.values()),
            provenance=found.provenance,
        )

    return make
