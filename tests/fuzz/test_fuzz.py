"""Whatever comes from outside is answered, or refused in words: no traceback, no hang, no unbounded memory.

A few examples of each test run by default; `make fuzz` runs all: FUZZ=full.
"""

import asyncio
import copy
import functools
import json
import math
import os
import resource
import signal
import string
from collections.abc import AsyncIterator
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck
from hypothesis import Phase
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tuner.condition import Condition
from tuner.costs import measured_file
from tuner.deploy import deploy
from tuner.errors import DataError
from tuner.errors import TunerError
from tuner.errors import UserError
from tuner.measure import dcgm
from tuner.measure import tensorrt_llm
from tuner.measure.latest import ReplyError
from tuner.measure.server import read_metrics
from tuner.proxy import proxy_config
from tuner.space import load_space
from tuner.spec import load_study
from tuner.table import Table
from tuner.tasks import load_task
from tuner.tasks import task_options
from tuner.tasks.scoring import SCORES
from tuner.verify import verify
from workflows import WORKFLOWS
from workflows import AgentPack
from workflows import ConfigError
from workflows import Demonstration
from workflows import Document
from workflows import ScriptedLLM
from workflows import Step
from workflows.agent import build
from workflows.agent_pack import Product
from workflows.config import AgentConfig
from workflows.config import load_agent_file
from workflows.errors import WorkflowsError
from workflows.trace import storable
from workflows.wire import Bounded
from workflows.wire import Events
from workflows.wire import ReplyError as WireError
from workflows.wire import retry_after_s

ROOT = Path(__file__).resolve().parents[2]
METRICS = ROOT / "tests" / "tuner" / "measure" / "server" / "fixtures"
FULL = os.environ.get("FUZZ") == "full"
FEW = 8
CASE_S = 30
"""What one case may take, on a busy machine."""

MORE_BYTES = 2 << 30
"""Of addresses, beyond what the process has when a test begins."""

pytestmark = [
    pytest.mark.fuzz,
    pytest.mark.filterwarnings("ignore"),  # ast warns of what models write
]


def fuzz(examples: int, /, **strategies: Any) -> Callable[[Any], Any]:
    """Runs a test on so many examples with FUZZ=full, and on a few without, each with a time limit."""

    def decorate(test: Any) -> Any:
        @functools.wraps(test)
        def limited(*args: Any, **kwargs: Any) -> None:
            with deadline(CASE_S):
                test(*args, **kwargs)

        given_test = given(**strategies)(limited)
        return settings(
            max_examples=examples if FULL else FEW,
            deadline=None,
            database=None,
            derandomize=not FULL,
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )(given_test)

    return decorate


class HangError(Exception):
    """A case took too long."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: Any) -> None:
        raise HangError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """No test may take much more than there is when it begins: a MemoryError is a failure."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MORE_BYTES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# What is changed in valid files

ODD = st.sampled_from([
    None, True, False, 0, -1, 1, 2**63, -(2**64), 10**60, 0.5, -0.0, 1e308, math.inf, -math.inf, math.nan, "", " ",
    "\0", "\ud800", "\u2028", "é" * 50, "x" * 5000, "null", "1e5", ">= 1", "<= x", "../../etc/passwd", "/dev/zero",
    "a:b", "os:system", "nan", "$(touch x)", "{{x}}", "[red]", "\x1b[2J", "0x1f", "1:30", "2001-01-01", "~", "*a",
    [], {}, [[]], [None], {"": None}, {"a": {"b": [1]}}, [1, "a", None], list(range(50)), {"low": 2, "high": 1},
    {"low": 0, "high": 10**9, "step": 1}, {"choices": []}, {"when": {}}, "actor", "jsonl", "react", "direct", "grid",
])  # fmt: skip
TEXT = st.text(max_size=200) | st.text(alphabet="[]{}:,-&*!|>'\"%@`#?\n \t0aA.<=~_", max_size=200)
VALUES = ODD | TEXT | st.integers() | st.floats()


def places(content: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    if isinstance(content, dict | list):
        for key in content if isinstance(content, dict) else range(len(content)):
            yield from places(content[key], (*at, key))


@st.composite
def changed(draw: st.DrawFn, contents: list[Any], most: int = 3) -> Any:
    """One of some valid contents, with a few of its parts replaced, removed, renamed or repeated."""
    content = copy.deepcopy(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(1, most))):
        known = list(places(content))
        if not known:
            break
        *above, last = draw(st.sampled_from(known))
        parent = functools.reduce(lambda part, key: part[key], above, content)
        match draw(st.sampled_from(["replace", "replace", "remove", "rename", "add", "swap"])):
            case "replace":
                parent[last] = copy.deepcopy(draw(VALUES))
            case "remove":
                del parent[last]
            case "rename" if isinstance(parent, dict):
                parent[draw(st.text(max_size=20))] = parent.pop(last)
            case "add" if isinstance(parent, dict):
                parent[draw(st.text(max_size=20))] = copy.deepcopy(draw(VALUES))
            case "swap":
                other = draw(st.sampled_from(known))
                try:
                    parent[last] = copy.deepcopy(
                        functools.reduce(lambda part, key: part[key], other, content)
                    )
                except (KeyError, IndexError, TypeError):
                    parent[last] = None
            case _:
                parent[last] = [parent[last]] * 2
    return content


def as_yaml(content: Any) -> bytes:
    try:
        return yaml.safe_dump(content, allow_unicode=True, sort_keys=False).encode("utf-8", "surrogatepass")  # fmt: skip
    except (yaml.YAMLError, ValueError):
        return json.dumps(content).encode()


@st.composite
def damaged(draw: st.DrawFn, texts: list[bytes]) -> bytes:
    """One of some texts, with pieces cut out, put in, or doubled."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 40)))
        put = draw(st.binary(max_size=20) | TEXT.map(lambda t: t.encode("utf-8", "surrogatepass")))
        again = text[start:end] * draw(st.sampled_from([0, 0, 1, 2, 30]))
        text = text[:start] + put + again + text[end:]
    return text


def files(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).glob("*.yaml"))


STUDIES = [yaml.safe_load(path.read_text()) for path in files("studies")]
SPACES = [yaml.safe_load(path.read_text()) for path in files("search_spaces")]
STUDY_TEXTS = [path.read_bytes() for path in files("studies")]
SPACE_TEXTS = [path.read_bytes() for path in files("search_spaces")]
WIDE = {
    **STUDIES[0],
    "task": {"name": "villages", "examples": 4, "holdout": 4},
    "search_space": "space.yaml",
    "models": {
        "a": {"model": "hosted_vllm/a", "api_base": "http://127.0.0.1:9/v1", "timeout_s": 3.0},
        "b": {"serve": "vllm", "model": "x/y", "max_num_seqs": [8, 16], "arguments": ["--x"]},
        "c": {"serve": "llama.cpp", "weights": "smollm2-135m-instruct", "meter": {"cpu_estimate": {}}},
    },
    "constraints": {"latency_p95_s": "<= 20"},
    "load": {"rate": 0.5, "warm_up": 1},
    "cache": "shared",
    "sampler": {"name": "tpe", "seed": 3},
    "racing": {"confidence": 0.9},
    "budget": {"trials": 3, "wall_clock": "1.5h", "energy_wh": 3.0, "tokens": 5},
    "profile": {"rates": {"react": [0.1]}},
    "storage": "sqlite:///tuner.db",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz")
    (path / "space.yaml").write_bytes(SPACE_TEXTS[0])
    return path


def try_study(folder: Path, text: bytes) -> None:
    path = folder / "study.yaml"
    path.write_bytes(text)
    try:
        study = load_study(path)
        study.fingerprint()
        if study.spec.task.get("name") in ("villages", "game24"):
            study.load_task()
    except UserError as error:
        assert error.hint
        assert len(str(error)) < 100_000


@fuzz(2000, content=changed([*STUDIES, WIDE, WIDE, WIDE, WIDE]))
def test_a_study_that_was_changed(folder: Path, content: Any) -> None:
    if isinstance(content, dict) and "search_space" in content and content["search_space"]:
        content = {**content, "search_space": "space.yaml"}
    try_study(folder, as_yaml(content))


@fuzz(1000, text=damaged([*STUDY_TEXTS, as_yaml(WIDE)]) | st.binary(max_size=500))
def test_a_study_that_was_damaged(folder: Path, text: bytes) -> None:
    try_study(folder, text)


def try_space(folder: Path, text: bytes) -> None:
    path = folder / "changed.yaml"
    path.write_bytes(text)
    try:
        space = load_space(path)
        space.size(["m"])
    except UserError as error:
        assert error.hint


@fuzz(2000, content=changed(SPACES))
def test_a_space_that_was_changed(folder: Path, content: Any) -> None:
    try_space(folder, as_yaml(content))


@fuzz(1000, text=damaged(SPACE_TEXTS) | st.binary(max_size=500))
def test_a_space_that_was_damaged(folder: Path, text: bytes) -> None:
    try_space(folder, text)


@fuzz(1000, text=TEXT | ODD.filter(lambda value: isinstance(value, str)))
def test_a_condition(text: str) -> None:
    for sign in ("", ">= ", "== "):
        try:
            Condition.parse(f"{sign}{text}").holds(3)
        except ValueError:
            pass


# Exports

COSTS = {
    "n": 1, "load": {"concurrency": 1}, "latency_mean_s": 1.0, "throughput_qps": None, "tokens_in": None, "tokens_out": None,
    "cost_usd": None, "energy": {"gross_wh": 0.1, "stderr_wh": None, "interval_wh": None, "source": "x", "scope": "y", "problem": None},
}  # fmt: skip
EXPORT = {
    "format_version": 1,
    "config": {"workflow": "react", "model": "m", "params": {"max_steps": 2, "few_shot": 1}},
    "models": {"m": {"settings": {"model": "hosted_vllm/m", "api_base": "http://127.0.0.1:9/v1", "api_key_env": "PATH", "timeout_s": 1.0, "max_retries": 0}}},
    "pack": {
        "instruction": "Answer.", "toolkits": ["browser", "calculator"], "answer": "line",
        "demonstrations": [{"question": "q", "answer": "a", "reasoning": "r", "steps": [{"thought": "t", "tool": "finish", "argument": "a"}]}],
    },
    "beside": {},
    "provenance": {
        "study": "s", "trial": 3, "rule": "knee", "hardware": "h", "task": {"name": "villages", "examples": 1, "holdout": 1},
        "task_files": {}, "load": {"concurrency": 1}, "cache": {"m": "shared"},
        "energy": {"m": {"source": "cpu-estimate", "scope": "s", "gpus": 0, "meter": {"cpu_estimate": {}}}},
        "measured": {"search": {"values": {"accuracy": 1.0}, "sources": {}, "answers": {"id": ["x"], "score": [1.0]}, "costs": COSTS}},
    },
}  # fmt: skip


def try_export(folder: Path, text: bytes) -> None:
    path = folder / "best.yaml"
    path.write_bytes(text)
    try:
        file = load_agent_file(path)
    except ConfigError as error:
        assert error.hint
        return
    for use in (
        lambda: build(
            file.config, llms=dict.fromkeys(file.models, ScriptedLLM([])), pack=file.pack
        ),
        lambda: proxy_config(file),
        lambda: measured_file(path),
        lambda: verify(path),
        lambda: deploy(path).__enter__(),
    ):
        try:
            use()
        except (ConfigError, TunerError) as error:
            assert error.hint
        else:
            continue


@fuzz(1500, content=changed([EXPORT]))
def test_an_export_that_was_changed(folder: Path, content: Any) -> None:
    try_export(folder, as_yaml(content))


@fuzz(1000, text=damaged([as_yaml(EXPORT)]) | st.binary(max_size=500))
def test_an_export_that_was_damaged(folder: Path, text: bytes) -> None:
    try_export(folder, text)


# Tables


def table_lines() -> list[Any]:
    config = AgentConfig(workflow="react", model="m", params={"max_steps": 3})
    cost = {
        "latency_s": 1.0, "energy_j": None, "tokens_in": 1, "tokens_out": 1, "tokens_cached": 0, "cost_usd": None,
        "llm_calls": 1, "tool_calls": 0, "llm_s": 1.0, "tool_only_s": 0.0, "score": 1,
    }  # fmt: skip
    header = {
        "format_version": 1, "study": "s", "recorded_on": "2026-01-31",
        "task": {"name": "villages", "options": {}, "fingerprint": "f"}, "search": ["q1"], "holdout": [],
        "search_space": {"name": "s", "fingerprint": "f"}, "models": {"m": {"model": "openai/m"}},
        "load": {"concurrency": 1, "rate": None, "warm_up": 0, "cool_down": 0}, "cache": "isolated",
        "provenance": {"machine": "", "python": "", "versions": {}, "models": {"m": {
            "settings": {"model": "openai/m"}, "serve": None, "cache": "",
            "energy": {"source": "none", "scope": "", "gpus": 0}}}},
        "configs": 1, "rows": 1,
    }  # fmt: skip
    line = {
        "id": config.hash(), **config.model_dump(), "anytime": "max_steps", "energy_source": "none", "energy_scope": "",
    }  # fmt: skip
    row = {"config": config.hash(), "example": "q1", **cost, "checkpoints": [{"budget": 1, **cost}]}
    return [header, line, row]


TABLE_TEXT = "".join(json.dumps(line) + "\n" for line in table_lines()).encode()


def try_table(folder: Path, text: bytes) -> None:
    path = folder / "table.jsonl"
    path.write_bytes(text)
    try:
        table = Table.read(path)
        for recorded in table.recorded.values():
            table.runs(recorded.config)
    except DataError as error:
        assert error.hint


@fuzz(1500, lines=changed([table_lines()]))
def test_a_table_that_was_changed(folder: Path, lines: Any) -> None:
    try_table(folder, "".join(json.dumps(line) + "\n" for line in lines).encode())


@fuzz(1000, text=damaged([TABLE_TEXT]) | st.binary(max_size=300))
def test_a_table_that_was_damaged(folder: Path, text: bytes) -> None:
    import gzip

    try_table(folder, text)
    try_table(folder, gzip.compress(text)[: max(3, len(text) // 2)])


# Data sets

PARAGRAPH = {"idx": 0, "title": "T", "paragraph_text": "A town. It is old.", "is_supporting": False}
WEBSHOP = {
    "asin": "B1", "name": "Coat", "pricing": "$20.00", "query": "coat", "product_category": "A › B",
    "full_description": "", "small_description": ["warm"], "customization_options": {"size": [{"value": "small"}]},
}  # fmt: skip
DATA: dict[str, tuple[dict[str, Any], Any]] = {
    "jsonl": ({"path": "f"}, [{"id": "a", "question": "q?", "answer": "x"}, {"question": "r?", "answers": ["y"]}]),
    "hotpotqa": ({"path": "f"}, [{"_id": "a", "question": "q?", "answer": "x", "type": "bridge", "context": [["K", ["K is."]]]}]),
    "musique": ({"path": "f"}, [{"id": "2hop__1", "question": "q?", "question_decomposition": [{"id": 1}], "answer": "x", "answer_aliases": ["y"], "answerable": True, "paragraphs": [PARAGRAPH]}]),
    "strategyqa": ({"path": "f"}, [{"qid": "q", "term": "T", "description": "d", "question": "q?", "answer": True, "facts": ["F."]}]),
    "gsm8k": ({"path": "f"}, [{"question": "q?", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"}]),
    "math": ({"path": "f"}, [{"problem": "p?", "solution": r"$\boxed{5}$", "answer": "5", "unique_id": "u"}]),
    "humaneval": ({"path": "f"}, [{"task_id": "T/0", "prompt": "def f(x):\n", "entry_point": "f", "canonical_solution": "    return x\n", "test": "def check(c):\n    assert c(1) == 1\n"}]),
    "mbpp": ({"path": "f"}, [{"task_id": 1, "text": "Write.", "code": "def f(): return 1", "test_list": ["assert f() == 1"], "test_setup_code": "", "challenge_test_list": []}]),
    "chat": ({"path": "f"}, [{"conversations": [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Yes."}]}]),
    "shop": ({"products": "f", "attributes": "g", "goals": "h"}, [WEBSHOP]),
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
def test_rows_of_a_data_set(folder: Path, name: str) -> None:
    options, rows = DATA[name]

    @fuzz(250, content=changed([rows]), text=damaged([json.dumps(rows[0]).encode()]))
    def try_rows(content: Any, text: bytes) -> None:
        lines = "".join(json.dumps(row) + "\n" for row in content).encode()
        for data in (lines, json.dumps(content).encode(), text):
            for file in ("f", "g", "h"):
                (folder / file).write_bytes(data)
            try:
                given_options = task_options(name).model_validate({**options, "examples": 1, "holdout": 0})  # fmt: skip
                task = load_task(name, given_options, base=folder)
            except DataError as error:
                assert error.hint
                assert len(str(error)) < 2000
            else:
                assert all(storable(each.id) == each.id for each in task.search)

    try_rows()


@fuzz(1000, answer=TEXT, right=TEXT | st.floats(allow_nan=False).map(str))
def test_scores_of_any_answer(answer: str, right: str) -> None:
    from tuner.tasks.game24 import same_puzzle_solved

    for score in SCORES.values():
        assert 0 <= score(answer, right) <= 1
    for said in (
        answer,
        f"({answer})",
        "9" * 3000,
        "(" * 3000,
        "-" * 3000 + "1",
        "9**9**9**9",
        "1" + "+1" * 3000,
    ):
        assert 0 <= same_puzzle_solved(said, "4 * 6 * 1 * 1") <= 1


# Replies of models

PIECES = st.sampled_from([
    "Thought 1:", "Action 1:", "Observation 1:", "Answer:", "finish[", "search[", "lookup[", "calculate[", "run\n```python\n",
    "```", "```python\n", "]", "[", "\n", "$1", "$2", "$99", "1. search[", "2. calculate[$1 + $1]", "join[", "join[]\n",
    "Finish(", "Replan(", "Score:", "10", "9" * 400, "yes", "no", "buy[]", "click[", "Question:", " ", "\t", "\0", "\ud83d", "\u2028",
    "(" * 300, "{\"a\":", "A", "B", "C", "1)", "- ", "[" * 400, "]" * 400, "x" * 3000, "../../etc/passwd", "__import__('os')",
    "9**9**9**9", "24", "4 + 6 = 10 (left: 10 7 8)", "\x1b[2J", "[red]", "$" * 200, "1." * 300, "`" * 100,
])  # fmt: skip
REPLIES = st.lists(PIECES | st.text(max_size=40), max_size=12).map("".join)
PAGES = (Document(title="Anna", sentences=("Anna is a smith.", "She has a dog.")),)
SHOWN = (
    Demonstration(
        question="Where?", answer="Oak", reasoning="It is in Oak.", steps=(Step(thought="I know.", tool="finish", argument="Oak"),)
    ),
)  # fmt: skip
PACKS = {
    "line": AgentPack(instruction="Answer.", toolkits=("browser", "calculator"), demonstrations=SHOWN, documents=PAGES),
    "text": AgentPack(instruction="Write.", answer="text", toolkits=("calculator",)),
    "program": AgentPack(instruction="Write a program.", answer="program", toolkits=()),
    "action": AgentPack(
        instruction="Buy.", answer="action", toolkits=("shop",),
        products=(Product(asin="B1", title="Coat", price=20.0, query="coat", category="A › B"),),
    ),
}  # fmt: skip
SMALL: dict[str, dict[str, Any]] = {
    "lats": {"iterations": 2, "children": 2},
    "react": {"max_steps": 3},
    "reflexion": {"trials": 2, "max_steps": 2},
    "self_consistency": {"samples": 3},
}


def params_of(name: str) -> dict[str, Any]:
    from workflows.table import workflow_kind

    known = workflow_kind(name).params.model_fields
    return {key: value for key, value in SMALL.get(name, {}).items() if key in known}


@pytest.mark.parametrize("name", WORKFLOWS)
@pytest.mark.parametrize("form", PACKS)
def test_replies_of_a_model(name: str, form: str) -> None:
    pack = PACKS[form]
    config = AgentConfig(workflow=name, model="m", params=params_of(name))
    try:
        build(config, llms={"m": ScriptedLLM([])}, pack=pack)
    except ConfigError:
        pytest.skip("answers no such questions")

    @fuzz(120, replies=st.lists(REPLIES, min_size=1, max_size=6), question=st.text(max_size=60))
    def try_replies(replies: list[str], question: str) -> None:
        count = 0

        def reply(request: Any) -> str:
            nonlocal count
            count += 1
            assert count < 200
            return replies[count % len(replies)]

        agent = build(config, llms={"m": ScriptedLLM(reply)}, pack=pack)
        try:
            outcome = asyncio.run(agent.run(question))
        except WorkflowsError:
            return
        assert storable(outcome.answer) == outcome.answer
        json.dumps([span.output for span in outcome.spans], ensure_ascii=False).encode()

    try_replies()


# Servers

PAGES_OF_METRICS = [path.read_bytes() for path in sorted(METRICS.glob("*.txt"))]
DCGM_PAGE = (
    b'# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter\nDCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="0",UUID="GPU-1"} 123456\n'
    b'DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="GPU-1"} 70.5\n'
)


@fuzz(1500, page=damaged(PAGES_OF_METRICS) | st.binary(max_size=300))
def test_metrics_of_a_server(page: bytes) -> None:
    try:
        read_metrics(page.decode("utf-8", "replace"))
    except ValueError as error:
        assert len(str(error)) < 100_000


@fuzz(1000, page=damaged([DCGM_PAGE]) | st.binary(max_size=300))
def test_metrics_of_an_exporter(page: bytes) -> None:
    try:
        dcgm._parse(page.decode("utf-8", "replace"))
    except ReplyError:
        pass


@fuzz(1000, page=damaged([b'{"total_energy_j": 12.5}']), value=VALUES)
def test_energy_of_a_server(page: bytes, value: Any) -> None:
    for text in (page.decode("utf-8", "replace"), json.dumps({"total_energy_j": value})):
        try:
            tensorrt_llm._parse(text)
        except ReplyError:
            pass


DIGITS = st.text(alphabet=string.digits + " :,GMTSunMon+-.", max_size=60)


@fuzz(1000, text=TEXT | DIGITS | ODD.map(str))
def test_when_to_come_again(text: str) -> None:
    found = retry_after_s({"retry-after": text})
    assert found is None or 0 <= found < math.inf


EVENT = b'data: {"choices": [{"index": 0, "text": "word", "delta": {"content": "word"}}]}\n\n'


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@fuzz(
    1500,
    data=damaged([EVENT * 3 + b"data: [DONE]\n\n"]) | st.binary(max_size=400),
    size=st.integers(1, 50),
)
def test_bytes_of_a_stream(data: bytes, size: int) -> None:
    async def read() -> bytes:
        body = Bounded(pieces(data, size), 1000, events=Events())
        return b"".join([piece async for piece in body])

    try:
        assert len(asyncio.run(read()).decode()) <= 1000
    except WireError as error:
        assert len(str(error)) < 500
