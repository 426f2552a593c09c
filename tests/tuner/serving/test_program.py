"""Servers that are programs with a command line, against a stand-in that takes the engines' flags."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from typing import Literal

import httpx  # here, so that a server that is loading is polled while it does
import psutil
import pytest

from tuner import serving
from tuner.errors import ServingError
from tuner.serving.program import ProgramServer
from workflows.config import ExportedModel
from workflows.llm import ChatClient
from workflows.llm import Request
from workflows.trace import Trace

PARENT = """
import json, sys, time
from tuner import serving
endpoint = serving.start("m", serving.Vllm.model_validate_json(sys.argv[1]))
print(endpoint.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which servers of this test, and of its children, keep their logs."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@pytest.fixture
def vllm(stand_in: Any) -> Callable[..., serving.Vllm]:
    """A model on the stand-in, which behaves as told."""

    def make(behaviour: str = "", **options: Any) -> serving.Vllm:
        return serving.Vllm(
            model="a/b", command=stand_in.command, environment={"STAND_IN": behaviour}, **options
        )

    return make


Make = Callable[..., serving.Vllm]


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


async def test_a_started_server_answers_under_the_models_name(vllm: Make, stand_in: Any) -> None:
    said: list[str] = []
    with serving.start("m@prefix_cache=true", vllm(max_num_seqs=8), say=said.append) as endpoint:
        client, trace = ChatClient(endpoint.settings), Trace()
        reply = await client.complete(Request(prompt="Hello", max_tokens=4), trace)
        await client.close()
        endpoint.check()

        assert reply.endswith("forty-two")
        assert trace.spans[0].tokens_cached == 8
        assert endpoint.settings.model == "hosted_vllm/m"
        assert (endpoint.settings.grammar, endpoint.settings.json_schema) == ("vllm", True)
        assert endpoint.serve is not None
        assert endpoint.serve["engine_version"] == "0.32.0"
        assert endpoint.isolate("a").how == "cleared"
        program = psutil.Process(stand_in.starts()[0]["pid"])
        assert endpoint.pid in {each.pid for each in program.parents()}
        assert program.environ()["VLLM_SERVER_DEV_MODE"] == "1"
    assert stand_in.starts()[0]["line"][:3] == ["a/b", "--served-model-name", "m"]
    assert said[0] == "starting vllm with a/b"
    assert is_gone(program.pid)


def test_sglang_says_its_version_elsewhere(stand_in: Any) -> None:
    model = serving.Sglang(model="a/b", command=stand_in.command, endpoint="completion")
    with serving.start("m", model) as endpoint:
        assert endpoint.serve is not None
        assert endpoint.serve["engine_version"] == "0.5.23"
        assert (endpoint.settings.endpoint, endpoint.settings.grammar) == ("completion", "none")
        assert endpoint.isolate("a").how == "cleared"


@pytest.mark.slow
def test_the_fingerprint_is_of_what_answers(vllm: Make, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")

    def found(name: str = "model", **options: Any) -> dict[str, Any]:
        model = vllm(**options).model_copy(update={"model": name})
        with serving.start("m", model, base=tmp_path) as endpoint:
            return endpoint.fingerprint()

    plain = found()
    (tmp_path / "model").rename(tmp_path / "moved")
    assert found("moved") == plain
    assert found("moved", max_num_seqs=8) != plain
    (tmp_path / "moved" / "config.json").write_text("[]")
    assert found("moved") != plain


@pytest.mark.parametrize("kind", ["hub", "folder"])
def test_an_exported_model_is_served_as_it_was(
    kind: Literal["hub", "folder"], vllm: Make, tmp_path: Path, stand_in: Any
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    model = vllm(max_num_seqs=8, speculative={"method": "ngram"}, timeout_s=7)
    if kind == "folder":
        model = model.model_copy(update={"model": "model"})
    with serving.start("m@max_num_seqs=8", model, base=tmp_path) as measured:
        exported = ExportedModel(settings=measured.settings, serve=measured.serve)

    with serving.start_exported("m@max_num_seqs=8", exported) as endpoint:
        assert endpoint.fingerprint() == measured.fingerprint()
        assert endpoint.settings.timeout_s == 7
    first, second = ([*start["line"]] for start in stand_in.starts())
    for line in (first, second):
        del line[line.index("--port") + 1]
    assert first == second

    if kind == "folder":
        (folder / "config.json").write_text("[]")
        with pytest.raises(ServingError, match=r"digest is .* was measured"):
            serving.start_exported("m", exported)


def test_an_engine_of_a_newer_tuner_is_named(vllm: Make) -> None:
    with serving.start("m", vllm()) as endpoint:
        serve = {**(endpoint.serve or {}), "engine": "future"}
        exported = ExportedModel(settings=endpoint.settings, serve=serve)

    with pytest.raises(ServingError, match=r"was served by 'future'; known: llama\.cpp, vllm"):
        serving.start_exported("m", exported)


def test_a_server_that_stops_while_starting_shows_the_end_of_its_log(
    vllm: Make, temporary: Path
) -> None:
    with pytest.raises(ServingError) as caught:
        serving.start("m", vllm("refuses=fp8", kv_cache_dtype="fp8"))

    assert str(caught.value).startswith(
        "models.m: the vllm server stopped while starting (exit code 1); the end of its log:"
    )
    assert str(caught.value).endswith("ValueError: fp8 is not supported on this device")
    assert not list(temporary.iterdir())


def test_a_server_that_takes_too_long_is_stopped(
    vllm: Make, stand_in: Any, temporary: Path
) -> None:
    with pytest.raises(ServingError, match=r"did not come up within 0\.5 s") as caught:
        serving.start("m", vllm("loads_s=60", start_timeout_s=0.5))

    assert "loading ['a/b']" in str(caught.value)
    assert is_gone(stand_in.starts()[0]["pid"])
    assert not list(temporary.iterdir())


@pytest.mark.slow
def test_one_hears_of_a_server_that_is_still_starting(
    vllm: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.serving.program.TELL_S", 0.1)
    httpx.Client().close()
    said: list[str] = []
    with serving.start("m", vllm("loads_s=2"), say=said.append):
        pass

    told = [text for text in said if text.startswith("m: vllm has been starting for ")]
    assert any(text.endswith(" s of at most 600 s: loading ['a/b']") for text in told)
    assert said[-1].startswith("m: vllm is up after ")


def test_interrupted_start_leaves_nothing(
    vllm: Make, stand_in: Any, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: ProgramServer) -> None:
        assert eventually(lambda: bool(stand_in.starts()))
        raise KeyboardInterrupt

    monkeypatch.setattr(ProgramServer, "wait", interrupt)

    with pytest.raises(KeyboardInterrupt):
        serving.start("m", vllm())

    assert is_gone(stand_in.starts()[0]["pid"])
    assert not list(temporary.iterdir())


def test_a_server_that_crashes_later_fails_the_check(vllm: Make, stand_in: Any) -> None:
    with serving.start("m", vllm()) as endpoint:
        os.kill(stand_in.starts()[0]["pid"], signal.SIGKILL)
        assert eventually(lambda: is_gone(endpoint.pid or 0))

        with pytest.raises(ServingError, match=r"the vllm server has stopped \(signal 9\)"):
            endpoint.check()
        with pytest.raises(ServingError, match="has stopped"):
            endpoint.isolate("a")


@pytest.mark.parametrize("who", ["tuner", "watcher"])
def test_no_program_outlives_the_tuner(
    who: str, vllm: Make, stand_in: Any, temporary: Path, tmp_path: Path
) -> None:
    child = tmp_path / "child"
    model = vllm(f"child={child}" if who == "tuner" else "")
    command = [sys.executable, "-c", PARENT, model.model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        watcher = int(parent.stdout.readline())
        program = stand_in.starts()[0]["pid"]
        started = {watcher, program}
        if who == "tuner":
            assert eventually(lambda: child.exists() and child.read_text().strip() != "")
            started.add(int(child.read_text()))
        assert not any(map(is_gone, started))
        os.kill(parent.pid if who == "tuner" else watcher, signal.SIGKILL)

        assert eventually(lambda: all(map(is_gone, started)))
        parent.kill()
    assert who == "watcher" or not list(temporary.iterdir())


def test_what_a_program_started_ends_with_it(vllm: Make, tmp_path: Path) -> None:
    child = tmp_path / "child"
    with serving.start("m", vllm(f"child={child}")):
        assert eventually(lambda: child.exists() and child.read_text().strip() != "")
        pid = int(child.read_text())
        assert not is_gone(pid)

    assert is_gone(pid)


def test_port_in_use_is_named(vllm: Make, stand_in: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(ServingError, match=rf"port {port} .* in use"):
            serving.start("m", vllm(port=port))
    assert not stand_in.starts()


def test_another_server_on_the_port_is_not_taken_for_ours(
    vllm: Make, stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving.start("other", vllm()) as other:
        port = int(str(other.settings.api_base).rpartition(":")[2].removesuffix("/v1"))
        # As if it had taken the port between our look and the start of ours.
        monkeypatch.setattr("tuner.serving.program.choose_port", lambda name, wanted: port)

        with pytest.raises(ServingError, match=r"is not what answers at .*: other"):
            serving.start("m", vllm("loads_s=5"))


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"command": ("no-such-engine", "serve")}, "needs the program 'no-such-engine', which is not there", "command: [/path/to/no-such-engine, …]"),
        ({"command": ("bin/vllm", "serve")}, "needs the program 'bin/vllm'", "command: [/path/to/vllm, …]"),
        ({"model": "./nowhere"}, "model: no folder ", "starts from the study file's folder"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_named(
    options: dict[str, Any], message: str, hint: str, vllm: Make, tmp_path: Path
) -> None:
    model = vllm().model_copy(update=options)

    with pytest.raises(ServingError) as caught:
        serving.start("m", model, base=tmp_path)

    assert message in str(caught.value)
    assert hint in str(caught.value.hint)


def test_a_program_is_found_beside_the_study(vllm: Make, stand_in: Any, tmp_path: Path) -> None:
    script = tmp_path / "engine.sh"
    script.write_text(f'#!/bin/sh\nexec {" ".join(stand_in.command)} "$@"\n')
    script.chmod(0o755)
    model = vllm().model_copy(update={"command": ("./engine.sh",)})

    with serving.start("m", model, base=tmp_path) as endpoint:
        assert (endpoint.serve or {})["command"] == [str(tmp_path / "engine.sh")]
