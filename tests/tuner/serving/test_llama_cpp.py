import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tuner import serving
from tuner.errors import ServingError
from tuner.serving import llama_cpp
from tuner.serving import process
from tuner.serving.llama_cpp import LlamaCppServer
from workflows.config import ExportedModel
from workflows.llm import ChatClient
from workflows.llm import Request
from workflows.trace import Trace

pytestmark = pytest.mark.usefixtures("smollm2")  # skips, with the reason, where there is no engine

STORY = "Once upon a time a miller and his cat lived beside a wide river, and every morning they"
LETTER = "Dear Sir, we have received your letter of the third of May about the broken clock, and"

PARENT = """
import os, sys, time
from tuner import serving
spec = serving.LlamaCpp(weights="smollm2-135m-instruct")
endpoint = serving.start("m", spec)
forked = os.fork() if sys.argv[1] == "fork" else 0
if sys.argv[1] == "fork" and not forked:
    time.sleep(60)
    os._exit(0)
print(endpoint.pid, forked, flush=True)
if sys.argv[1] == "return":
    sys.exit()
time.sleep(60)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which servers of this test, and of its children, keep their logs."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def served(**changes: Any) -> serving.LlamaCpp:
    return serving.LlamaCpp(weights="smollm2-135m-instruct", **changes)


def test_it_listens_on_loopback_only(smollm2: serving.Endpoint) -> None:
    assert smollm2.pid is not None
    server = psutil.Process(smollm2.pid)
    listening = [
        each.laddr.ip
        for one in (server, *server.children(recursive=True))
        for each in one.net_connections()
        if each.status == psutil.CONN_LISTEN
    ]
    assert set(listening) == {"127.0.0.1"}


def complete(endpoint: serving.Endpoint, prompt: str, max_tokens: int = 24) -> tuple[str, int]:
    """The greedy reply and how many of the prompt's tokens came from the prefix cache."""
    reply = httpx.post(
        f"{endpoint.settings.api_base}/completions",
        json={"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "seed": 0},
        timeout=60,
        trust_env=False,
    ).json()
    return reply["choices"][0]["text"], reply["usage"]["prompt_tokens_details"]["cached_tokens"]


def eventually(condition: Callable[[], bool], within_s: float = 120.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def is_empty(folder: Path) -> bool:
    return not list(folder.iterdir())


async def test_chat_client_reaches_the_server_and_the_grammar_holds(
    smollm2: serving.Endpoint,
) -> None:
    trace = Trace()
    request = Request(prompt=STORY, max_tokens=8, grammar='root ::= " Paris" | " Rome"')

    reply = await ChatClient(smollm2.settings).complete(request, trace)

    assert reply in {" Paris", " Rome"}
    assert trace.spans[0].tokens_in is not None


def test_serve_says_how_the_server_was_started(smollm2: serving.Endpoint) -> None:
    serve = dict(smollm2.serve or {})

    assert serve.pop("engine_version").startswith("xllamacpp ")
    assert serve == {
        "engine": "llama.cpp",
        "weights": "smollm2-135m-instruct",
        "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "threads": 1,
        "slots": 1,
        "context": 4096,
        "prefix_cache": True,
        "kv_cache_type": "f16",
    }


def test_metrics_and_slots_are_served(smollm2: serving.Endpoint) -> None:
    root = str(smollm2.settings.api_base).removesuffix("/v1")

    assert "llamacpp:" in httpx.get(f"{root}/metrics", trust_env=False).text
    slots = httpx.get(f"{root}/slots", trust_env=False).json()
    assert [slot["n_ctx"] for slot in slots] == [4096]


@pytest.mark.slow
def test_temperature_0_repeats_exactly_also_when_isolated(smollm2: serving.Endpoint) -> None:
    prompts = [STORY, LETTER, STORY + " saw", LETTER + " wish", STORY]

    smollm2.isolate("a")
    first = [complete(smollm2, prompt) for prompt in prompts]
    smollm2.isolate("a")
    second = [complete(smollm2, prompt) for prompt in prompts]

    assert first == second


def test_isolation_leaves_no_hits(smollm2: serving.Endpoint) -> None:
    complete(smollm2, STORY)
    assert complete(smollm2, STORY)[1] > 10

    assert smollm2.isolate("a").label == "cleared"

    assert complete(smollm2, STORY)[1] == 0


@pytest.mark.slow
def test_isolation_leaves_no_hits_in_any_slot() -> None:
    with serving.start("m", served(slots=2, context=512)) as endpoint:
        prompts = [STORY, LETTER]
        for prompt in prompts:
            complete(endpoint, prompt)
        assert min(complete(endpoint, prompt)[1] for prompt in prompts) > 10

        endpoint.isolate("a")

        assert [complete(endpoint, prompt)[1] for prompt in prompts] == [0, 0]


@pytest.mark.slow
def test_fingerprint_is_the_same_for_another_port_and_not_for_other_slots(
    smollm2: serving.Endpoint,
) -> None:
    with serving.start("another-name", served()) as endpoint:
        assert endpoint.settings.api_base != smollm2.settings.api_base
        assert endpoint.fingerprint() == smollm2.fingerprint()
    with serving.start("m", served(slots=2, context=512)) as endpoint:
        assert endpoint.fingerprint() != smollm2.fingerprint()


def export(endpoint: serving.Endpoint) -> ExportedModel:
    return ExportedModel(settings=endpoint.settings, serve=endpoint.serve)


@pytest.mark.slow
def test_exported_agent_is_served_as_it_was_measured(tmp_path: Path) -> None:
    (tmp_path / "mine.gguf").symlink_to(serving.find_weights("smollm2-135m-instruct"))
    spec = serving.LlamaCpp(weights="mine.gguf", context=512, timeout_s=7)
    with serving.start("m", spec, base=tmp_path) as measured:
        exported = export(measured)

    with serving.start_exported("m", exported) as endpoint:
        assert endpoint.fingerprint() == measured.fingerprint()
        assert endpoint.settings.timeout_s == 7


def test_exported_agent_is_not_served_with_other_weights(
    tmp_path: Path, smollm2: serving.Endpoint
) -> None:
    (tmp_path / "mine.gguf").write_bytes(b"changed")
    exported = export(smollm2)
    exported = exported.model_copy(
        update={"serve": {**(smollm2.serve or {}), "weights": str(tmp_path / "mine.gguf")}}
    )

    with pytest.raises(ServingError, match="was measured"):
        serving.start_exported("m", exported)


def test_closed_server_is_gone_with_its_log(temporary: Path) -> None:
    with serving.start("m", served()) as endpoint:
        assert endpoint.pid is not None
        assert not is_empty(temporary)
    endpoint.close()

    assert is_gone(endpoint.pid)
    assert is_empty(temporary)
    with pytest.raises(ServingError, match=r"models\.m: the llama.cpp server has stopped"):
        endpoint.check()


def test_server_that_was_killed_fails_the_check() -> None:
    with serving.start("m", served()) as endpoint:
        assert endpoint.pid is not None
        endpoint.check()
        os.kill(endpoint.pid, signal.SIGKILL)
        assert eventually(lambda: is_gone(endpoint.pid or 0))

        with pytest.raises(ServingError, match=r"has stopped \(signal 9\)"):
            endpoint.check()


@pytest.mark.slow
def test_server_that_does_not_answer_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "HEALTH_TIMEOUT_S", 0.2)
    with serving.start("m", served()) as endpoint:
        assert endpoint.pid is not None
        os.kill(endpoint.pid, signal.SIGSTOP)

        with pytest.raises(ServingError, match="does not answer /health"):
            endpoint.check()


def test_ctrl_c_does_not_reach_the_server() -> None:
    with serving.start("m", served()) as endpoint:
        assert endpoint.pid is not None
        assert os.getsid(endpoint.pid) != os.getsid(0)
        os.kill(endpoint.pid, signal.SIGINT)
        time.sleep(0.2)

        endpoint.check()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["sleep", "fork", "return"])
def test_no_server_outlives_its_parent(end: str, temporary: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, end], stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        server, forked = map(int, parent.stdout.readline().split())
        try:
            if end != "return":
                assert not is_gone(server)
                parent.kill()
            parent.wait()

            assert eventually(lambda: is_gone(server))
            assert is_empty(temporary)
        finally:
            if forked:
                os.kill(forked, signal.SIGKILL)


def test_interrupted_start_leaves_nothing(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: LlamaCppServer) -> None:
        started.append(self.pid)
        raise KeyboardInterrupt

    started: list[int | None] = []
    monkeypatch.setattr(LlamaCppServer, "wait", interrupt)

    with pytest.raises(KeyboardInterrupt):
        serving.start("m", served())

    assert is_gone(started[0] or 0)
    assert is_empty(temporary)


def test_garbage_weights_give_the_end_of_the_log(tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"not a model" * 1000)
    spec = serving.LlamaCpp(weights="bad.gguf")

    with pytest.raises(ServingError, match="stopped while starting") as caught:
        serving.start("m", spec, base=tmp_path)

    assert "invalid magic" in str(caught.value)
    assert [path.name for path in temporary.iterdir()] == ["bad.gguf"]


def test_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(ServingError, match=rf"port {port} .* in use"):
            serving.start("m", served(port=port))


@pytest.mark.slow
def test_chosen_port_is_taken_and_can_be_taken_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for _ in range(2):
        with serving.start("m", served(port=port)) as endpoint:
            assert endpoint.settings.api_base == f"http://127.0.0.1:{port}/v1"
            complete(endpoint, STORY, max_tokens=1)


def test_server_that_takes_too_long_is_killed(temporary: Path) -> None:
    with pytest.raises(ServingError, match=r"did not come up within 0\.001 s"):
        serving.start("m", served(start_timeout_s=0.001))

    assert is_empty(temporary)


def test_missing_engine_gives_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp, "find_spec", lambda name: None)

    with pytest.raises(ServingError) as caught:
        serving.start("m", served())

    assert caught.value.hint == "pip install 'tuner[local]'"
