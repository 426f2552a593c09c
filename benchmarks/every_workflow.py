"""Every workflow on every task that it suits, with SmolLM2-135M on this machine's CPU: that all run, and what each costs.

The model is far too small for most of these tasks; what is looked at is whether anything crashes, hangs or writes
what a workflow cannot read. Tasks whose official file is not in --data are left out. `unparsed` is the share of model
replies that were no action where one was wanted, `empty` of those without a word (workflows ask once more where they
can), `unanswered` that of questions without an answer, which includes budgets that ran out.
"""

import argparse
import asyncio
import json
import platform
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.evaluate import evaluate
from tuner.load import Load
from tuner.measure import CpuEstimate
from tuner.measure import CpuEstimateSpec
from tuner.measure import MeterSpec
from tuner.measure import make_meter
from tuner.records import ExampleRun
from tuner.serving import Endpoint
from tuner.serving import LlamaCpp
from tuner.serving import start
from tuner.tasks import Task
from tuner.tasks import load_task
from tuner.tasks import task_options
from workflows.agent import build
from workflows.config import AgentConfig
from workflows.llm import ChatClient
from workflows.table import WORKFLOWS
from workflows.table import workflow_kind

FILES: Mapping[str, Mapping[str, Any]] = {
    "villages": {},
    "game24": {},
    "shop": {},
    "chat": {},
    "hotpotqa": {"path": "hotpotqa_dev_distractor_396.jsonl"},
    "musique": {"path": "musique_dev_200.jsonl"},
    "strategyqa": {"path": "strategyqa_dev.json"},
    "gsm8k": {"path": "gsm8k_test.jsonl"},
    "math": {"path": "math_500.jsonl"},
    "humaneval": {"path": "HumanEval.jsonl.gz"},
}
"""Task to its options; paths are within --data."""

SHORT: Mapping[str, Mapping[str, Any]] = {
    "direct": {"few_shot": 4},
    "cot": {"few_shot": 3, "max_tokens": 60},
    "self_consistency": {"few_shot": 3, "samples": 3, "max_tokens": 60},
    "react": {"few_shot": 2, "max_steps": 6, "max_tokens": 60},
    "reflexion": {"few_shot": 2, "max_trials": 2, "max_steps": 4, "max_tokens": 60},
    "lats": {
        "few_shot": 2,
        "iterations": 2,
        "children": 2,
        "depth": 4,
        "rollout_depth": 1,
        "reflections": 1,
        "max_tokens": 40,
    },
    "llmcompiler": {"few_shot": 2, "max_rounds": 2, "max_tokens": 100, "join_tokens": 60},
    "tree_of_thoughts": {
        "few_shot": 2,
        "steps": 2,
        "children": 2,
        "breadth": 2,
        "evaluations": 1,
        "max_tokens": 30,
    },
    "cascade": {"cheap.few_shot": 4, "costly.few_shot": 2, "costly.max_tokens": 60},
}
"""Budgets that a CPU gets through; what is not named is at its default."""

LONGER: Mapping[str, Mapping[str, int]] = {
    "program": {"max_tokens": 200, "cheap.max_tokens": 200, "costly.max_tokens": 200},
    "text": {"max_tokens": 120},
}
"""By form of answer, for the workflows that have such knobs."""

HANGS_S = 600.0
"""A question that takes longer is taken to hang."""


def main() -> None:
    """Run, print and record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="2 questions of 2 tasks; a minute")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--data", type=Path, help="folder with the official files")
    parser.add_argument("--tasks", nargs="*", choices=FILES, default=list(FILES))
    parser.add_argument("--workflows", nargs="*", choices=WORKFLOWS, default=list(WORKFLOWS))
    parser.add_argument("--examples", type=int, default=20)
    arguments = parser.parse_args()
    tasks = ["villages", "game24"] if arguments.quick else arguments.tasks
    examples = 2 if arguments.quick else arguments.examples
    say = (lambda text: None) if arguments.json else lambda text: print(text, file=sys.stderr)
    rows = []
    # Slots are prompt caches as well: the prompts of actor, judge and value do not drive each other out.
    spec = LlamaCpp(weights="smollm2-135m-instruct", slots=4, context=8192)
    with start("smollm2", spec) as endpoint:
        for name in tasks:
            task = load(name, examples, arguments.data)
            if task is None:
                say(f"{name}: its file is not in --data")
                continue
            for workflow in arguments.workflows:
                row = asyncio.run(measure(workflow, task, endpoint))
                if row is not None:
                    rows.append(row)
                    say(json.dumps(row))
    place = Path(__file__).parent / "results" / "every_workflow.json"
    if not arguments.quick and place.is_file():  # what was measured before and not now stays
        measured = {(row["task"], row["workflow"]) for row in rows}
        rows += [
            row
            for row in json.loads(place.read_text())["rows"]
            if (row["task"], row["workflow"]) not in measured
        ]
    result = {
        "benchmark": "every_workflow",
        "model": "smollm2-135m-instruct",
        "rows": rows,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }
    text = json.dumps(result, indent=2)
    if not arguments.quick:
        place.write_text(text + "\n")
    if arguments.json:
        print(text)
    else:
        print_table(rows)


def load(name: str, examples: int, data: Path | None) -> Task | None:
    """The task with so many questions; None where it needs a file that is not there."""
    options = dict(FILES[name])
    if "path" in options and (data is None or not (data / options["path"]).is_file()):
        return None
    checked = task_options(name)(examples=examples, holdout=0, **options)
    return load_task(name, checked, base=data or Path())


async def measure(workflow: str, task: Task, endpoint: Endpoint) -> dict[str, Any] | None:
    """What became of the task's questions; None where the workflow does not suit the task."""
    kind = workflow_kind(workflow)
    known = kind.params().model_dump()
    longer = LONGER.get(task.pack.answer, {})
    knobs = {**SHORT[workflow], **{name: value for name, value in longer.items() if name in known}}
    if kind.params.model_validate(knobs).unfit(task.pack) is not None:
        return None
    config = AgentConfig(workflow=workflow, model="smollm2", params=knobs)
    client = ChatClient(endpoint.settings)
    runs: list[ExampleRun] = []
    spec = MeterSpec(CpuEstimateSpec(cpu_estimate=CpuEstimate()))
    endpoint.isolate("pass")
    started_s = time.perf_counter()
    hung = False
    try:
        async with asyncio.timeout(HANGS_S * len(task.search)):
            await evaluate(
                build(config, llms={"smollm2": client}, pack=task.pack),
                task.search,
                task=task,
                meter=make_meter(spec, pid=endpoint.pid),
                load=Load(),
                record=runs.append,
            )
    except TimeoutError:
        hung = True
    finally:
        await client.close()
    return {
        "task": task.name,
        "workflow": workflow,
        "n": len(runs),
        **summary(runs),
        "failures": [run.error for run in runs if run.error is not None],
        "hung": hung,
        "seconds": round(time.perf_counter() - started_s, 1),
    }


def summary(runs: list[ExampleRun]) -> dict[str, Any]:
    """Means over the runs."""
    replies = [span for run in runs for span in run.spans if span.kind == "llm"]
    empty = sum(not span.output.strip() for span in replies)
    nameless = sum(span.kind == "tool" and not span.name for run in runs for span in run.spans)
    joules = [run.energy.gross_j for run in runs if run.energy.gross_j is not None]
    return {
        "accuracy": round(statistics.fmean(run.score for run in runs), 3),
        "llm_calls": round(statistics.fmean(run.llm_calls for run in runs), 2),
        "tool_calls": round(statistics.fmean(run.tool_calls for run in runs), 2),
        "latency_p50_s": round(statistics.median(run.latency_s for run in runs), 3),
        "energy_wh": round(statistics.fmean(joules) / 3600, 5) if joules else None,
        "unparsed": round(nameless / max(1, len(replies)), 4),
        "empty": round(empty / max(1, len(replies)), 4),
        "unanswered": round(sum(not run.answer for run in runs) / len(runs), 3),
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """The rows for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    columns = [name for name in rows[0] if name != "failures"]
    for name in (*columns, "failed"):
        table.add_column(name)
    for row in rows:
        table.add_row(*(str(row[name]) for name in columns), str(len(row["failures"])))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
