"""What LATS gains by doing at once what does not depend on each other: its latency, concurrent and one call at a time.

The same questions are answered as LATS makes its calls, and with a lock around every call of the model or of a
tool; tools take 0.5 s. All passes make the same calls: the later ones really make them, and read the replies that
the first one had. Two servers:

llama.cpp   SmolLM2 with four slots on one thread. Calls at once share that thread, and a slot has a prompt cache
            of its own, so that what the calls have in common is read once for each slot.
with room   replies take what a call by itself took on llama.cpp, however many there are: what the workflow gains
            where the server is not the limit.
"""

import argparse
import asyncio
import copy
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuner.serving import Endpoint
from tuner.serving import LlamaCpp
from tuner.serving import start
from tuner.tasks import load_task
from tuner.tasks import task_options
from workflows.agent import build
from workflows.base import Outcome
from workflows.config import AgentConfig
from workflows.llm import LLM
from workflows.llm import ChatClient
from workflows.llm import OnText
from workflows.llm import Request
from workflows.llm import ScriptedLLM
from workflows.tools import Kit
from workflows.tools import Tool
from workflows.tools import Toolbox
from workflows.tools import browser
from workflows.trace import Trace
from workflows.trace import union_s

CHILDREN = 4
SLOTS = 4
TOOL_S = 0.5

Gate = AbstractAsyncContextManager[Any]


class Replayed:
    """A model behind a gate, which gives to a request that was made before the reply that it had."""

    def __init__(self, llm: LLM, gate: Gate, replies: dict[Request, str]) -> None:
        self._llm = llm
        self._gate = gate
        self._replies = replies

    async def complete(self, request: Request, trace: Trace, on_text: OnText | None = None) -> str:
        """The reply, after the time that the server takes."""
        async with self._gate:
            reply = await self._llm.complete(request, trace, on_text)
        return self._replies.setdefault(request, reply)


class Slow:
    """A kit whose tools take their time, behind a gate."""

    def __init__(self, kit: Kit, gate: Gate) -> None:
        self._kit = kit
        self._gate = gate

    def __copy__(self) -> "Slow":
        return Slow(copy.copy(self._kit), self._gate)

    def tools(self) -> Iterable[Tool]:
        """The kit's."""
        return [replace(tool, call=self._slowed(tool)) for tool in self._kit.tools()]

    def _slowed(self, tool: Tool) -> Any:
        async def call(argument: str) -> str:
            async with self._gate:
                await asyncio.sleep(TOOL_S)
                return await tool.call(argument)

        return call


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one question; a minute at most")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    arguments = parser.parse_args()
    questions, iterations = (1, 1) if arguments.quick else (8, 2)
    config = AgentConfig(
        workflow="lats",
        model="m",
        params={"few_shot": 2, "children": CHILDREN, "iterations": iterations},
    )
    spec = LlamaCpp(weights="smollm2-135m-instruct", slots=SLOTS)
    with start("smollm2", spec) as endpoint:
        benchmark = Benchmark(endpoint, config, questions, quiet=arguments.json)
        by_server = asyncio.run(benchmark.run())
    result = {
        "benchmark": "lats_concurrency",
        "speedup": by_server["llama.cpp"]["speedup"],
        "by_server": by_server,
        "config": config.model_dump(),
        "tool_s": TOOL_S,
        "fingerprint": endpoint.fingerprint(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    text = json.dumps(result, indent=2)
    if not arguments.quick:
        path = Path(__file__).parent / "results" / "lats_concurrency.json"
        path.write_text(text + "\n")
    print(text)


class Benchmark:
    """The passes over the questions."""

    def __init__(
        self, endpoint: Endpoint, config: AgentConfig, questions: int, *, quiet: bool
    ) -> None:
        options = task_options("villages")(examples=questions, holdout=1)
        self._task = load_task("villages", options, base=Path())
        self._open_kit = browser.load(self._task.pack)
        self._endpoint = endpoint
        self._config = config
        self._quiet = quiet
        self._replies: dict[Request, str] = {}

    async def run(self) -> dict[str, Any]:
        """Latencies and speed-ups by server."""
        client = ChatClient(self._endpoint.settings)
        real: dict[str, list[Outcome]] = {"concurrent": [], "serial": []}
        # There and back, so that a machine that slows down meanwhile slows down both.
        for mode in ("concurrent", "serial", "serial", "concurrent"):
            self._endpoint.isolate("question")
            real[mode] += await self._answer(mode, client)
        await client.close()
        alone_s = statistics.median(
            span.end_s - span.start_s
            for outcome in real["serial"]
            for span in outcome.spans
            if span.kind == "llm"
        )
        roomy = ScriptedLLM(self._replies.__getitem__, delay_s=alone_s)
        ideal = {mode: await self._answer(mode, roomy) for mode in real}
        return {
            "llama.cpp": compared(real),
            "with room": {"reply_s": alone_s, **compared(ideal)},
        }

    async def _answer(self, mode: str, llm: LLM) -> list[Outcome]:
        """One pass over the questions."""
        outcomes = []
        for number, example in enumerate(self._task.search):
            gate: Gate = asyncio.Lock() if mode == "serial" else nullcontext()
            llms = {"m": Replayed(llm, gate, self._replies)}
            agent = build(self._config, llms=llms, pack=self._task.pack)
            session = agent.open_session(seed=number)
            session.tools = Toolbox([Slow(self._open_kit(), gate)])
            outcomes.append(await agent.run_session(example.question, session))
            if not self._quiet:
                print(f"{mode} {number}: {outcomes[-1].latency_s:.1f} s", file=sys.stderr)
        return outcomes


def compared(outcomes: dict[str, list[Outcome]]) -> dict[str, Any]:
    """Median latencies of both modes, serial ÷ concurrent, and what each run took."""
    p50 = {
        mode: statistics.median(outcome.latency_s for outcome in runs)
        for mode, runs in outcomes.items()
    }
    return {
        "speedup": p50["serial"] / p50["concurrent"],
        "latency_p50_s": p50,
        "runs": {mode: [summary(outcome) for outcome in runs] for mode, runs in outcomes.items()},
    }


def summary(outcome: Outcome) -> dict[str, Any]:
    """What a run took."""
    llm = [span for span in outcome.spans if span.kind == "llm"]
    return {
        "latency_s": outcome.latency_s,
        "llm_calls": len(llm),
        "tool_calls": len(outcome.spans) - len(llm),
        "llm_s": union_s([(span.start_s, span.end_s) for span in llm]),
        "tokens_in": sum(span.tokens_in or 0 for span in llm),
        "tokens_cached": sum(span.tokens_cached or 0 for span in llm),
        "tokens_out": sum(span.tokens_out or 0 for span in llm),
    }


if __name__ == "__main__":
    main()
