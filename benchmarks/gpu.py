"""Energy of a question on this machine's GPU, by the GPU's own counter: direct answers, chains of thought and ReAct.

Serves SmolLM2-135M-Instruct (or --model) with vLLM, else with `transformers serve`, runs a small study of the built-in
villages task against it, checks the counter against the integral of the GPU's power over the whole run, and stops what it
started. Reads the GPU, and changes none of its settings. --api-base measures a server that already runs here instead.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from contextlib import closing
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import yaml

import tuner
from tuner.cli.progress import open_progress
from tuner.errors import TunerError
from tuner.errors import UserError
from tuner.measure import Meter
from tuner.measure import MeterSpec
from tuner.measure import Sample
from tuner.measure import make_meter
from tuner.measure.nvml import list_gpus
from tuner.measure.window import PERIOD_S
from tuner.measure.window import total
from tuner.objectives import JOULES_PER_WH
from tuner.objectives import OBJECTIVES
from tuner.results import open_results
from tuner.serving import find_weights
from tuner.serving.process import choose_port
from tuner.serving.weights import cached_path
from tuner.spec import LoadedStudy

SMALL = "smollm2-135m-instruct"
NAME = "measured"
"""What the study calls the model."""

START_LIMIT_S = 900.0
STOP_LIMIT_S = 30.0

SPACE: dict[str, Any] = {
    "format_version": 1,
    "name": "gpu",
    "workflows": {
        "direct": {"few_shot": 5, "demonstrations": "nearest"},
        "cot": {"few_shot": 3, "demonstrations": "nearest", "max_tokens": 48},
        "react": {
            "few_shot": 3,
            "demonstrations": "nearest",
            "max_steps": 6,
            "thoughts": False,
            "max_tokens": 24,
        },
    },
}


def main() -> None:
    """Serve, measure, print and record. Exits with 2 for what the user can mend, with 1 where a trial failed."""
    arguments = parse()
    signal.signal(
        signal.SIGTERM, lambda number, frame: sys.exit(128 + number)
    )  # what was started ends too
    try:
        with ExitStack() as stack:
            result = measure(arguments, stack)
    except TunerError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        print(f"error: {error}{hint}", file=sys.stderr)
        sys.exit(2)
    text = json.dumps(result, indent=2)
    if not arguments.quick:
        (Path(__file__).parent / "results" / "gpu.json").write_text(text + "\n")
    print(text if arguments.json else table(result))
    sys.exit(1 if result["failed"] else 0)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model",
        help="a folder, or a name on the hub; left out, SmolLM2-135M-Instruct is made here",
    )
    parser.add_argument(
        "--python",
        type=Path,
        default=Path(sys.executable),
        help="the Python of the environment that has vLLM or transformers; left out, this one, then the PATH",
    )
    parser.add_argument("--gpus", nargs="+", metavar="UUID", help="those to meter; left out, all")
    parser.add_argument(
        "--api-base", help="a server that runs here already: http://127.0.0.1:8000/v1"
    )
    parser.add_argument(
        "--endpoint",
        choices=("chat", "completion"),
        help="how a server is asked; left out, completion of vLLM, chat of others",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a third of the questions; not recorded"
    )
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    return parser.parse_args()


def measure(arguments: argparse.Namespace, stack: ExitStack) -> dict[str, Any]:
    """The result. What is started ends with the stack. Raises TunerError."""
    wanted = "all" if arguments.gpus is None else arguments.gpus
    gpus = [gpu for gpu in list_gpus() if wanted == "all" or gpu.uuid in wanted]
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tuner-gpu-")))
    model, server = choose_server(arguments, folder, stack)
    study = write_study(
        folder, {**model, "meter": {"nvml": wanted}}, 40 if arguments.quick else 120
    )
    meter = make_meter(MeterSpec.model_validate({"nvml": wanted}), pid=None)
    with watch(meter) as samples, open_progress(study) as report:
        tuner.run_study(study, report=report)
    workflows, failed = costs(study)
    return {
        "benchmark": "gpu",
        "gpus": [
            {"name": gpu.name, "uuid": gpu.uuid, "tick_s": gpu.tick_s, "power": gpu.power}
            for gpu in gpus
        ],
        "driver": driver(),
        "server": server,
        "model": arguments.model or (model["model"] if arguments.api_base else SMALL),
        "source": meter.source,
        "workflows": workflows,
        "failed": failed,
        "counter_and_power": compare(meter, samples),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("tuner", "nvidia-ml-py")},
    }


def choose_server(
    arguments: argparse.Namespace, folder: Path, stack: ExitStack
) -> tuple[dict[str, Any], str]:
    """The model as a study names it, and its server in words. Raises UserError where nothing can serve it."""
    asked = arguments.endpoint
    if arguments.api_base is not None:
        model = addressed(arguments.api_base, arguments.model, asked or "chat")
        return model, f"at {arguments.api_base}"
    vllm = find_program("vllm", arguments.python)
    if vllm is not None:
        model = {
            "serve": "vllm",
            "command": [vllm, "serve"],
            "model": str(arguments.model or small_model(arguments.python)),
            "endpoint": asked or "completion",
            "context": 2048,
        }
        return model, "vLLM"
    transformers = find_program("transformers", arguments.python)
    if transformers is not None:
        name = str(arguments.model or small_model(arguments.python))
        api_base = stack.enter_context(serve_transformers(transformers, name, folder))
        return addressed(api_base, name, asked or "chat"), "transformers serve"
    raise UserError(
        "neither vllm nor transformers is installed here, and one of them must serve the model",
        hint="pip install vllm, or 'transformers[serving]' torch accelerate; or --python of an environment that "
        "has them; or --api-base of a server that runs on this machine",
    )


def find_program(name: str, python: Path) -> str | None:
    """A program beside that Python, else on the PATH."""
    path = f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return shutil.which(name, path=path)


def small_model(python: Path) -> Path:
    """The folder of SmolLM2-135M-Instruct, made once out of its .gguf by a Python that has transformers."""
    folder = cached_path(SMALL).with_suffix("").parent / "SmolLM2-135M-Instruct"
    if (folder / "config.json").is_file():
        return folder
    weights = find_weights(SMALL, say=lambda text: print(text, file=sys.stderr))
    print(f"converting {weights.name} into {folder}", file=sys.stderr)
    program = find_program("vllm", python) or find_program("transformers", python) or str(python)
    beside = Path(program).parent / "python"
    script = Path(__file__).with_name("gguf_to_hf.py")
    with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
        command = [
            str(beside if beside.exists() else python),
            str(script),
            str(weights),
            unfinished,
        ]
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode != 0:
            raise UserError(
                f"{weights.name} cannot be converted: {made.stderr.strip().splitlines()[-1]}",
                hint="pip install gguf beside transformers and torch, or give --model FOLDER or a name on the hub",
            )
        shutil.copytree(unfinished, folder)
    return folder


def addressed(api_base: str, model: str | None, endpoint: str) -> dict[str, Any]:
    """A server that runs, and the first model that it lists where none is named. Raises UserError."""
    try:
        listed = httpx.get(f"{api_base}/models", timeout=10).json()["data"] if model is None else []
        name = model or listed[0]["id"]
    except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"{api_base}/models does not say what is served there: {type(error).__name__}: {error}",
            hint="correct --api-base (it usually ends in /v1), or name the model: --model",
        ) from None
    return {"model": f"hosted_vllm/{name}", "api_base": api_base, "endpoint": endpoint}


@contextmanager
def serve_transformers(program: str, model: str, folder: Path) -> Iterator[str]:
    """The address of `transformers serve` with this model, once it is up. Raises UserError where it does not come up."""
    port = choose_port(NAME, 0)
    environment = dict(os.environ)
    if Path(model).is_dir():
        # It lists what the hub's cache holds, where a folder is not: an empty list is taken at the model's word.
        (folder / "hub").mkdir()
        environment |= {"HF_HUB_CACHE": str(folder / "hub"), "HF_HUB_OFFLINE": "1"}
    log = folder / "server.log"
    command = [program, "serve", model, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment
        )
    try:
        wait_for(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        stop(process)


def wait_for(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Until it answers. Raises UserError with the end of its log where it does not."""
    print(f"starting transformers serve (process {process.pid})", file=sys.stderr)
    end_s = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end_s and process.poll() is None:
        try:
            if httpx.get(address, timeout=5, trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise UserError(
        f"transformers serve did not come up; the end of its log:\n{tail}",
        hint="mend what the log says; does the model fit into the GPU's memory?",
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and those below it, by force after a while."""
    try:
        below = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        below = []
    process.terminate()
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in psutil.wait_procs(below, timeout=5)[1]:
        child.kill()


def write_study(folder: Path, model: dict[str, Any], examples: int) -> LoadedStudy:
    """A study with one config for each workflow."""
    study = {
        "format_version": 1,
        "name": "gpu",
        "task": {"name": "villages", "examples": examples, "holdout": 0, "seed": 7},
        "search_space": "space.yaml",
        "models": {NAME: model},
        "objectives": ["accuracy", "latency_p50_s", "energy_wh"],
        "load": {"concurrency": 1},
        "sampler": {"name": "random", "seed": 7},
        "budget": {"trials": 30},
        "storage": "sqlite:///tuner.db",
    }
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return tuner.load_study(folder / "study.yaml")


@contextmanager
def watch(meter: Meter) -> Iterator[list[Sample]]:
    """What the meter says ten times a second, until the block ends."""
    samples = [meter.read()]
    end = threading.Event()

    def look() -> None:
        while not end.wait(PERIOD_S):
            samples.append(meter.read())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        end.set()
        thread.join()


def compare(meter: Meter, samples: list[Sample]) -> dict[str, Any]:
    """The count over the whole run beside the integral of power over the same time."""
    counted = [each for each in samples if each.joules is not None and each.power_w is not None]
    if len(counted) < 2 or meter.source != "nvml-counter":
        return {"problem": "the GPU does not tell both"}
    joules = np.array([each.joules for each in counted], dtype=float)
    watts = np.array([each.power_w for each in counted], dtype=float)
    t_s = np.array([each.t_s for each in counted])
    integrated = float((watts[1:] + watts[:-1]) @ np.diff(t_s)) / 2
    counter = float(joules[-1] - joules[0])
    return {
        "counter_j": round(counter, 2),
        "integrated_j": round(integrated, 2),
        "apart_share": round(abs(integrated - counter) / counter, 4),
        "seconds": round(float(t_s[-1] - t_s[0]), 1),
        "samples": len(counted),
        "lowest_w": round(float(watts.min()), 1),
        "highest_w": round(float(watts.max()), 1),
    }


def costs(study: LoadedStudy) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What each workflow cost a question, and why trials failed."""
    found: dict[str, dict[str, Any]] = {}
    failed = []
    with closing(open_results(study)) as store:
        for trial in store.trials():
            if trial.state == "failed":
                failed.append(str(trial.failure))
            if trial.state != "complete" or trial.config is None or trial.replay_of is not None:
                continue
            runs = store.runs(trial.trial_id, "search")
            energy = total([run.energy for run in runs])
            assert energy.gross_j is not None
            per_query = JOULES_PER_WH * len(runs)
            p50 = OBJECTIVES["latency_p50_s"].value(runs)
            found[trial.config.workflow] = {
                "questions": len(runs),
                "wh_per_query": energy.gross_j / per_query,
                "stderr_wh": (energy.stderr_j or 0.0) / per_query,
                "net_wh_per_query": None if energy.net_j is None else energy.net_j / per_query,
                "mean_w": round(energy.gross_j / energy.seconds, 1),
                "idle_w": None if energy.idle_j is None else energy.idle_j / energy.seconds,
                "temperature_c": energy.temperature_c,
                "accuracy": sum(run.score for run in runs) / len(runs),
                "latency_p50_s": p50,
                "llm_calls": sum(run.llm_calls for run in runs) / len(runs),
                "pass_s": round(energy.seconds, 2),
                "source": energy.source,
                "warning": energy.warning,
            }
    return {name: found[name] for name in SPACE["workflows"] if name in found}, failed


def driver() -> str:
    """The version of the NVIDIA driver; "unknown" where it does not say."""
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            return str(pynvml.nvmlSystemGetDriverVersion())
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return "unknown"


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = [
        f"{', '.join(gpu['name'] for gpu in result['gpus'])}; {result['server']}; {result['model']}; "
        f"energy: {result['source']}",
        f"{'workflow':10}{'Wh/question':>22}{'net':>12}{'against direct':>16}{'accuracy':>10}{'p50 s':>9}{'calls':>7}",
    ]
    base = result["workflows"].get("direct", {}).get("wh_per_query")
    for name, row in result["workflows"].items():
        wh = f"{row['wh_per_query']:.3g} ± {row['stderr_wh']:.1g}"
        net = "?" if row["net_wh_per_query"] is None else f"{row['net_wh_per_query']:.3g}"
        ratio = "?" if base is None else f"{row['wh_per_query'] / base:.1f}"
        lines.append(
            f"{name:10}{wh:>22}{net:>12}{ratio:>16}{row['accuracy']:>10.0%}"
            f"{row['latency_p50_s']:>9.3f}{row['llm_calls']:>7.1f}"
        )
    both = result["counter_and_power"]
    if "problem" in both:
        lines.append(f"counter against power: {both['problem']}")
    else:
        lines.append(
            f"counter {both['counter_j']:.0f} J, power integrates to {both['integrated_j']:.0f} J over "
            f"{both['seconds']:.0f} s: {both['apart_share']:.1%} apart"
        )
    return "\n".join(lines + [f"failed: {reason}" for reason in result["failed"]])


if __name__ == "__main__":
    main()
