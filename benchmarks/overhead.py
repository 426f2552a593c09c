"""What `evaluate` costs on top of the calls it makes, against bare loops that send the very same requests.

On SmolLM2 (llama.cpp, one slot): the requests of one pass of `evaluate` are recorded, then sent again by a bare
httpx loop and by a bare litellm loop, each in the same order, from an empty prompt cache, in turns with `evaluate`.
The ratio of wall times is taken pair by pair; the median counts. Goals: ≤ 1.08 of httpx, ≤ 1.02 of litellm.

On a loopback server that answers at once: calls per second with 64 in flight, `evaluate` ÷ bare litellm, on the
chat endpoint (which we too reach through litellm) and on the completion endpoint. Goal: ≥ 0.8.
"""

import argparse
import asyncio
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tuner.evaluate import evaluate
from tuner.load import Load
from tuner.measure import NoMeter
from tuner.serving import Endpoint
from tuner.serving import LlamaCpp
from tuner.serving import start
from tuner.tasks import Example
from tuner.tasks import Task
from tuner.tasks import load_task
from tuner.tasks import task_options
from workflows.agent import build
from workflows.agent_pack import AgentPack
from workflows.config import AgentConfig
from workflows.config import ModelSettings
from workflows.llm import LLM
from workflows.llm import ChatClient
from workflows.llm import OnText
from workflows.llm import Request
from workflows.llm import import_litellm
from workflows.trace import Trace

CONFIGS = {
    "direct": AgentConfig(workflow="direct", model="m", params={"few_shot": 3}),
    "react": AgentConfig(
        workflow="react",
        model="m",
        params={"few_shot": 3, "demonstrations": "nearest", "max_steps": 3, "thoughts": False},
    ),
}
IN_FLIGHT = 64


class Recorder:
    """A model that notes every request and passes it on."""

    def __init__(self, llm: LLM) -> None:
        self.requests: list[Request] = []
        self._llm = llm

    async def complete(self, request: Request, trace: Trace, on_text: OnText | None = None) -> str:
        """The model's reply."""
        self.requests.append(request)
        return await self._llm.complete(request, trace, on_text)


async def unscored(example: Example, answer: str) -> float:
    """No score: what an answer is worth is not measured here."""
    return 0.0


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer pairs; a minute at most")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    arguments = parser.parse_args()
    pairs, examples, calls = (2, 3, 150) if arguments.quick else (5, 8, 500)
    say = (lambda text: None) if arguments.json else lambda text: print(text, file=sys.stderr)
    by_config = {}
    with start("smollm2", LlamaCpp(weights="smollm2-135m-instruct")) as endpoint:
        for name, config in CONFIGS.items():
            say(f"SmolLM2, {name}: {pairs} pairs of {examples} examples")
            by_config[name] = asyncio.run(on_smollm2(endpoint, config, pairs, examples))
    say(f"loopback: {calls} calls, {IN_FLIGHT} in flight")
    loopback = asyncio.run(on_loopback(calls, repeats=2 if arguments.quick else 5))
    result = {
        "benchmark": "overhead",
        "vs_httpx": by_config["react"]["vs_httpx"],
        "vs_litellm": by_config["react"]["vs_litellm"],
        "zero_latency_vs_litellm": loopback["chat"]["ratio"],
        "smollm2": by_config,
        "loopback": loopback,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }
    text = json.dumps(result, indent=2)
    if not arguments.quick:
        (Path(__file__).parent / "results" / "overhead.json").write_text(text + "\n")
    print(text)


async def on_smollm2(
    endpoint: Endpoint, config: AgentConfig, pairs: int, examples: int
) -> dict[str, Any]:
    """Wall times of `evaluate` and of the two bare loops, in turns, and the medians of their ratios."""
    options = task_options("villages")(examples=examples, holdout=1)
    task = load_task("villages", options, base=Path())
    client = ChatClient(endpoint.settings)

    async def ours(llm: LLM) -> None:
        agent = build(config, llms={"m": llm}, pack=task.pack)
        await evaluate(
            agent,
            task.search,
            task=task,
            meter=NoMeter(),
            load=Load(),
            record=lambda run: None,
        )

    recorder = Recorder(client)
    await ours(recorder)  # also warms up
    bodies = [body_of(request, endpoint.settings) for request in recorder.requests]
    await with_litellm(bodies[:1], endpoint.settings)
    walls: dict[str, list[float]] = {"evaluate": [], "httpx": [], "litellm": []}
    for _ in range(pairs):
        for name, loop in (
            ("evaluate", lambda: ours(client)),
            ("httpx", lambda: with_httpx(bodies, endpoint.settings)),
            ("litellm", lambda: with_litellm(bodies, endpoint.settings)),
        ):
            endpoint.isolate("round")
            walls[name].append(await wall_s(loop))
    return {
        "calls": len(bodies),
        "vs_httpx": median_ratio(walls["evaluate"], walls["httpx"]),
        "vs_litellm": median_ratio(walls["evaluate"], walls["litellm"]),
        "wall_s": walls,
    }


def body_of(request: Request, settings: ModelSettings) -> dict[str, Any]:
    """The request as ChatClient sends it to a completion endpoint."""
    body = {
        "model": settings.model.partition("/")[2],
        "prompt": request.text(),
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.stop:
        body["stop"] = list(request.stop)
    if request.grammar is not None:
        body["grammar"] = request.grammar
    return body


async def with_httpx(bodies: list[dict[str, Any]], settings: ModelSettings) -> None:
    """Send the bodies one after the other, as lean as can be: no streaming, one kept-alive connection."""
    async with httpx.AsyncClient(timeout=60) as client:
        for body in bodies:
            plain = {key: value for key, value in body.items() if not key.startswith("stream")}
            response = await client.post(f"{settings.api_base}/completions", json=plain)
            response.raise_for_status()


async def with_litellm(bodies: list[dict[str, Any]], settings: ModelSettings) -> None:
    """Send the bodies one after the other through litellm and read every chunk."""
    litellm = import_litellm()
    for body in bodies:
        arguments = dict(body)
        arguments["model"] = f"text-completion-openai/{body['model']}"
        if "grammar" in arguments:
            arguments["extra_body"] = {"grammar": arguments.pop("grammar")}
        stream = await litellm.atext_completion(
            **arguments, api_base=settings.api_base, api_key="none", timeout=60, max_retries=0
        )
        async for _ in stream:
            pass


async def on_loopback(calls: int, repeats: int) -> dict[str, Any]:
    """Calls per second with 64 in flight, `evaluate` and bare litellm in turns, on both endpoints."""
    script = Path(__file__).parent / "loopback.py"
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        api_base = json.loads(server.stdout.readline())["api_base"]
        try:
            return {
                endpoint: await rates(endpoint, api_base, calls, repeats)
                for endpoint in ("chat", "completion")
            }
        finally:
            server.terminate()


async def rates(endpoint: Any, api_base: str, calls: int, repeats: int) -> dict[str, Any]:
    """Medians of calls per second and of the ratio."""
    settings = ModelSettings(model="openai/loopback", api_base=api_base, endpoint=endpoint)
    examples = tuple(Example(str(n), f"Question {n}?", ("42",)) for n in range(calls))
    task = Task("loopback", AgentPack(instruction="Answer."), examples, (), unscored)
    agent = build(
        AgentConfig(workflow="direct", model="m"), llms={"m": ChatClient(settings)}, pack=task.pack
    )
    litellm = import_litellm()

    async def ours() -> None:
        await evaluate(
            agent,
            task.search,
            task=task,
            meter=NoMeter(),
            load=Load(concurrency=IN_FLIGHT),
            record=lambda run: None,
        )

    async def bare() -> None:
        waiting = iter(examples)

        async def work() -> None:
            for example in waiting:
                shared: dict[str, Any] = {
                    "api_base": api_base,
                    "api_key": "none",
                    "max_tokens": 48,
                    "temperature": 0.0,
                    "stream": True,
                    "stream_options": {"include_usage": True},
                    "timeout": 60,
                    "max_retries": 0,
                }
                if endpoint == "chat":
                    stream = await litellm.acompletion(
                        model="openai/loopback",
                        messages=[{"role": "user", "content": example.question}],
                        **shared,
                    )
                else:
                    stream = await litellm.atext_completion(
                        model="text-completion-openai/loopback", prompt=example.question, **shared
                    )
                async for _ in stream:
                    pass

        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))

    await ours()
    await bare()
    walls: dict[str, list[float]] = {"evaluate": [], "litellm": []}
    for _ in range(repeats):
        walls["evaluate"].append(await wall_s(ours))
        walls["litellm"].append(await wall_s(bare))
    return {
        "ratio": median_ratio(walls["litellm"], walls["evaluate"]),
        "calls_per_s": {name: calls / statistics.median(times) for name, times in walls.items()},
    }


async def wall_s(loop: Callable[[], Awaitable[None]]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    await loop()
    return time.perf_counter() - started


def median_ratio(above: list[float], below: list[float]) -> float:
    """Median of the ratios, pair by pair."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


if __name__ == "__main__":
    main()
