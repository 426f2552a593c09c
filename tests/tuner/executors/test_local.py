"""Trials on real servers: what one finds of another's prompts in their prefix cache, by their replies and by their own count."""

import json
import threading
from collections import Counter
from collections import defaultdict
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from typing import Literal

import httpx
import pytest

from tuner import serving
from tuner.executors.fleet import Fleet
from tuner.executors.local import LocalExecutor
from tuner.load import Load
from tuner.measure.server import read_metrics
from tuner.records import ExampleRun
from tuner.records import PassRecord
from tuner.spec import LoadedStudy
from tuner.spec import load_study
from tuner.tasks import Example
from tuner.tasks import Task
from workflows.agent_pack import AgentPack
from workflows.config import AgentConfig

pytestmark = pytest.mark.filterwarnings("ignore", "error:::workflows")

Write = Callable[[Mapping[str, Any]], LoadedStudy]

INSTRUCTION = "The miller and his cat live beside a wide river. Every morning they go to the market. Answer in one word."
CONFIG = AgentConfig(workflow="direct", model="m", params={"max_tokens": 4})


class Server(ThreadingHTTPServer):
    """A server of this test's; `open_at` says where."""

    daemon_threads = True

    @property
    def root(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def begin() -> Iterator[Any]:
    """Starts a server with that handler."""
    running: list[Server] = []

    def start(handler: type[BaseHTTPRequestHandler]) -> Server:
        running.append(Server(("127.0.0.1", 0), handler))
        threading.Thread(target=running[-1].serve_forever, args=[0.01]).start()
        return running[-1]

    yield start
    for each in running:
        each.shutdown()
        each.server_close()


class Quiet(BaseHTTPRequestHandler):
    """A handler that reads a request's body, sends a whole reply, and writes no log."""

    def body(self) -> bytes:
        """The request's."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def send(self, status: int, content: bytes, kind: str = "application/json") -> None:
        """A whole reply."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Nothing."""


def without_slots(root: str) -> type[Quiet]:
    """A proxy for the server at `root` that refuses to erase its slots."""

    class Proxy(Quiet):
        def forward(self) -> None:
            if self.path.startswith("/slots/"):
                self.send(501, b"{}")
                return
            with httpx.Client(trust_env=False, timeout=60) as client:
                reply = client.request(
                    self.command,
                    root + self.path,
                    content=self.body(),
                    headers={"Content-Type": "application/json"},
                )
            self.send(reply.status_code, reply.content, reply.headers["content-type"])

        do_GET = do_POST = forward  # noqa: N815

    return Proxy


def vllm_like(*, resets: bool) -> type[Quiet]:
    """Completions of a server that knows earlier prompts word by word, those of each cache_salt apart."""
    known: dict[str | None, list[list[str]]] = defaultdict(list)
    counts = Counter[str]()

    class Vllm(Quiet):
        def do_GET(self) -> None:
            models = {"data": [{"id": "m", "owned_by": "vllm"}]}
            pages = {
                "/v1/models": json.dumps(models),
                "/metrics": f"vllm:prompt_tokens_cached_total {counts['cached']}\n"
                f"vllm:prompt_tokens_total {counts['all']}\n",
            }
            self.send(200 if self.path in pages else 404, pages.get(self.path, "").encode())

        def do_POST(self) -> None:
            asked = self.body()
            if self.path.startswith("/reset_prefix_cache"):
                known.clear() if resets else None
                self.send(200 if resets else 404, b'{"success": true}')
                return
            request = json.loads(asked)
            words = request["prompt"].split()
            earlier = known[request.get("cache_salt")]
            cached = max((shared(words, each) for each in earlier), default=0)
            earlier.append(words)
            counts.update({"cached": cached, "all": len(words)})
            usage = {
                "prompt_tokens": len(words),
                "completion_tokens": 1,
                "total_tokens": len(words) + 1,
                "prompt_tokens_details": {"cached_tokens": cached},
            }
            chunk = {"id": "1", "object": "text_completion", "created": 0, "model": "m"}
            choice = {"index": 0, "text": "yes", "finish_reason": "stop"}
            events = [{**chunk, "choices": [choice]}, {**chunk, "choices": [], "usage": usage}]
            lines = [*(f"data: {json.dumps(event)}\n\n" for event in events), "data: [DONE]\n\n"]
            self.send(200, "".join(lines).encode(), "text/event-stream")

    return Vllm


def shared(one: list[str], other: list[str]) -> int:
    """How many words both begin with; the last of a prompt is computed in any case."""
    pairs = zip(one[:-1], other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one) - 1, len(other)))


def task() -> Task:
    examples = tuple(Example(f"e{n}", f"Question {n}?", ("yes",)) for n in range(2))

    async def score(example: Example, answer: str) -> float:
        return float(answer == "yes")

    return Task("test", AgentPack(instruction=INSTRUCTION), examples, (), score)


SPACE = "{format_version: 1, name: none, workflows: {direct: {max_tokens: [4]}}}"
STUDY = """\
format_version: 1
name: local
task: {name: jsonl, path: q.jsonl, examples: 1, holdout: 0}
search_space: space.yaml
models: {m: MODEL}
objectives: [accuracy, tokens_total]
budget: {trials: 1}
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a study whose only model is that one."""

    def write(model: Mapping[str, Any]) -> LoadedStudy:
        (tmp_path / "q.jsonl").write_text('{"question": "?", "answer": "yes"}\n' * 2)
        (tmp_path / "space.yaml").write_text(SPACE)
        (tmp_path / "study.yaml").write_text(STUDY.replace("MODEL", json.dumps(model)))
        return load_study(tmp_path / "study.yaml")

    return write


def by_address(root: str, name: str = "m") -> dict[str, Any]:
    """The model of that name at an address, as a study has it."""
    return {
        "model": f"hosted_vllm/{name}",
        "api_base": f"{root}/v1",
        "endpoint": "completion",
        "reuse_connections": False,
    }


async def trials(
    study: LoadedStudy, cache: Literal["isolated", "shared"], count: int = 2
) -> tuple[list[tuple[list[ExampleRun], PassRecord]], float]:
    """As many passes of one config over the same questions, and what the server itself says it took from its cache."""
    one = task()
    found = []
    with Fleet(study) as fleet:
        await fleet.open()
        executor = LocalExecutor(fleet=fleet, task=one, load=Load(concurrency=1), cache=cache)
        endpoint = fleet.running["m"].endpoint
        before = hits(endpoint)
        for number in range(count):
            runs: list[ExampleRun] = []
            kept = await executor.run(CONFIG, one.search, runs.append, window=number)
            found.append((runs, kept))
        await fleet.disconnect()
        return found, hits(endpoint) - before


def cached(runs: list[ExampleRun]) -> list[int]:
    """The first call's, then the second's, … as the replies say."""
    assert [run.error for run in runs] == [None] * len(runs)
    return [run.tokens_cached for run in runs if run.tokens_cached is not None]


def asked(runs: list[ExampleRun]) -> list[int]:
    """Prompt tokens of each call."""
    return [run.tokens_in for run in runs if run.tokens_in is not None]


def hits(endpoint: serving.Endpoint) -> float:
    """Prompt tokens that the server says it took from its cache since it started."""
    _, sample = read_metrics(httpx.get(f"{endpoint.root}/metrics", trust_env=False).text)
    assert sample.prefix_hits is not None
    return sample.prefix_hits


def no_salt_is_seen(runs: list[ExampleRun]) -> bool:
    return all(span.input.startswith(INSTRUCTION) for run in runs for span in run.spans)


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["our own", "by address"])
async def test_second_trial_finds_nothing_of_the_first_where_slots_are_erased(
    whose: str, smollm2: serving.Endpoint, write: Write
) -> None:
    ours = {"serve": "llama.cpp", "weights": "smollm2-135m-instruct"}
    study = write(ours if whose == "our own" else by_address(str(smollm2.root), "smollm2"))

    found, counted = await trials(study, "isolated")

    for runs, kept in found:
        first, second = cached(runs)
        assert first == 0
        assert second > 10  # within a trial, what its prompts begin with is shared
        assert kept.isolation["m"].startswith("cleared (")
        server = kept.servers["m"]
        assert server["engine"] == "llama.cpp"
        assert server["prefix_hit_share"] == pytest.approx(second / sum(asked(runs)))
        assert server["kv_source"] == "analytic"
        assert max(asked(runs)) < server["kv_tokens_max"] <= max(asked(runs)) + 4
        if whose == "our own":  # at an address, nobody knows the model's shape
            assert server["kv_bytes_max"] == 23_040 * server["kv_tokens_max"]
        else:
            assert server["kv_bytes_max"] is None
    assert counted == sum(sum(cached(runs)) for runs, _ in found)


@pytest.mark.slow
async def test_second_trial_finds_nothing_of_the_first_where_prompts_are_salted(
    smollm2: serving.Endpoint, begin: Any, write: Write
) -> None:
    root = begin(without_slots(str(smollm2.root))).root

    found, counted = await trials(write(by_address(root, "smollm2")), "isolated", count=3)

    for runs, kept in found:
        first, second = cached(runs)
        assert first == 0
        assert second > 10
        assert kept.isolation["m"].startswith("salted: prompt (POST /slots/0?action=erase: 501")
        assert no_salt_is_seen(runs)
    assert counted == sum(sum(cached(runs)) for runs, _ in found)


async def test_shared_cache_is_shared(smollm2: serving.Endpoint, write: Write) -> None:
    smollm2.isolate("a")

    found, counted = await trials(write(by_address(str(smollm2.root), "smollm2")), "shared")

    assert min(cached(found[1][0])) > 10
    assert counted == sum(sum(cached(runs)) for runs, _ in found)
    assert found[1][1].isolation == {"m": "shared"}


@pytest.mark.parametrize(
    ("resets", "label"),
    [(True, "cleared (POST /reset_prefix_cache"), (False, "salted: cache_salt (")],
)
async def test_vllm_is_reset_or_given_a_salt_beside_the_prompt(
    resets: bool, label: str, begin: Any, write: Write
) -> None:
    root = begin(vllm_like(resets=resets)).root

    found, counted = await trials(write(by_address(root)), "isolated", count=3)

    for runs, kept in found:
        first, second = cached(runs)
        assert first == 0
        assert second > 10
        assert kept.isolation["m"].startswith(label)
        assert asked(runs) == asked(found[0][0])
        assert kept.servers["m"]["prefix_hit_share"] == pytest.approx(second / sum(asked(runs)))
        assert no_salt_is_seen(runs)
    assert counted == sum(sum(cached(runs)) for runs, _ in found)


async def test_it_goes_on_from_the_past_and_ends_once_it_is_enough(
    begin: Any, write: Write
) -> None:
    one, study = task(), write(by_address(begin(vllm_like(resets=True)).root))
    with Fleet(study) as fleet:
        await fleet.open()
        executor = LocalExecutor(fleet=fleet, task=one, load=Load(concurrency=1), cache="shared")
        runs: list[ExampleRun] = []
        await executor.run(CONFIG, one.search, runs.append, window=0)
        past = {"e0": runs[0]}
        went_on: list[ExampleRun] = []
        await executor.run(
            CONFIG,
            one.search,
            went_on.append,
            window=1,
            past=past,
            enough=lambda: len(went_on) == 1,
        )
        await fleet.disconnect()
    (again,) = went_on
    assert again.spans == runs[0].spans
    assert again.reused == runs[0].taken_over().reused
