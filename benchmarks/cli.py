"""Wall time of `tuner --help` and of `tuner front` on a large study, each in a process of its own.

The study is written through Optuna and the tuner's own store, with example runs drawn at random: only their
number matters here. Goals: help ≤ 0.4 s, front ≤ 1 s on 1,000 trials with 50 example runs each.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import optuna

from tuner.objectives import OBJECTIVES
from tuner.records import ExampleRun
from tuner.records import Reading
from tuner.samplers import make_sampler
from tuner.spec import LoadedStudy
from tuner.spec import load_study
from tuner.store import Store
from tuner.store.schema import open_optuna_storage
from workflows.base import Checkpoint
from workflows.config import AgentConfig
from workflows.trace import Span

SPACE = """\
format_version: 1
name: large
workflows:
  direct: {few_shot: {low: 0, high: 8}, max_tokens: {low: 1, high: 1000}}
  react: {few_shot: {low: 0, high: 8}, max_steps: {low: 1, high: 64}, max_tokens: [50, 100, 200]}
"""
STUDY = """\
format_version: 1
name: large
task: {name: villages, examples: 50, holdout: 0}
search_space: space.yaml
models: {small: {model: openai/small, api_base: "http://127.0.0.1:9/v1"}}
objectives: [accuracy, latency_p50_s, energy_wh]
budget: {trials: 100000}
"""


def main() -> None:
    """Write the study, time the commands, print and record the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 trials; a minute at most")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    arguments = parser.parse_args()
    trials = 100 if arguments.quick else 1000
    with tempfile.TemporaryDirectory() as folder:
        study = write_study(Path(folder), trials=trials, examples=50)
        result = {
            "benchmark": "cli",
            "trials": trials,
            "example_runs": trials * 50,
            "seconds": {
                "help": seconds("--help"),
                "front": seconds("front", str(study.path)),
                "status": seconds("status", str(study.path)),
            },
            "database_mib": (Path(folder) / "tuner.db").stat().st_size / 2**20,
            "machine": f"{platform.machine()}, Python {platform.python_version()}",
        }
    text = json.dumps(result, indent=2)
    if not arguments.quick:
        (Path(__file__).parent / "results" / "cli.json").write_text(text + "\n")
    print(text)


def seconds(*arguments: str) -> float:
    """Median wall seconds of 5 runs of the `tuner` beside this Python."""
    command = [str(Path(sys.executable).parent / "tuner"), *arguments]
    walls = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        walls.append(time.perf_counter() - start)
    return statistics.median(walls)


def write_study(folder: Path, *, trials: int, examples: int) -> LoadedStudy:
    """A study file and its database, filled with finished trials."""
    (folder / "space.yaml").write_text(SPACE)
    (folder / "study.yaml").write_text(STUDY)
    study = load_study(folder / "study.yaml")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna_study = optuna.create_study(
        study_name=study.spec.name,
        storage=open_optuna_storage(study.storage_url),
        directions=[OBJECTIVES[name].direction for name in study.spec.objectives],
        sampler=make_sampler("random", seed=0, trial=0),
    )
    store = Store.create(study.storage_url, study.spec.name)
    store.register({}, spec={}, provenance={})
    store.claim("benchmark", None)
    rng = np.random.default_rng(0)
    for number in range(trials):
        trial = optuna_study.ask()
        config = study.space.sample(trial, study.models)
        trial_id = store.trial_id(number)
        store.save_config(trial_id, config)
        runs = [draw_run(index, config, rng) for index in range(examples)]
        for run in runs:
            store.save_run(trial_id, "search", run, owner="benchmark", search_s=0.0)
        values = {name: OBJECTIVES[name].value(runs) or 0.0 for name in study.spec.objectives}
        store.finish(trial_id, values=values)
        optuna_study.tell(trial, [values[name] for name in study.spec.objectives])
    return study


def draw_run(index: int, config: AgentConfig, rng: np.random.Generator) -> ExampleRun:
    """An example run of plausible size: three calls with few-shot prompts."""
    latency_s = float(rng.lognormal(0.0, 0.5))
    prompt = " ".join(rng.choice(["search", "village", "miller", "of", "the"], size=300))
    spans = tuple(
        Span(
            "llm",
            "small",
            step,
            step + 0.5,
            f"{prompt} step {step}",
            "search[Anna]",
            0.1,
            400,
            8,
            380,
        )
        for step in range(3)
    )
    return ExampleRun(
        example_id=f"search-{index:03d}",
        repeat=0,
        answer="baker",
        score=float(rng.random() < 0.1 * config.params["few_shot"]),
        error=None,
        latency_s=latency_s,
        energy=Reading(10 * latency_s, "cpu-estimate", "server process 1"),
        tokens_in=1200,
        tokens_out=24,
        tokens_cached=1140,
        cost_usd=None,
        llm_calls=3,
        tool_calls=2,
        llm_s=latency_s,
        tool_only_s=0.0,
        started_s=0.0,
        checkpoints=(Checkpoint(1, "", 2, 0.5), Checkpoint(2, "", 4, 1.0)),
        spans=spans,
    )


if __name__ == "__main__":
    main()
