"""Keys are planted in the environment, a study runs on a server that says them back, and everything it leaves is searched for them."""

import base64
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tuner.dashboard import artifact_folder
from tuner.dashboard import refresh
from tuner.results import open_results
from tuner.spec import load_study
from workflows.secret import HIDDEN
from workflows.secret import Veil
from workflows.secret import hide
from workflows.secret import secrets

# As in tests/workflows/test_llm.py.
pytestmark = pytest.mark.filterwarnings("ignore", "error:::tuner", "error:::workflows")

PLANTED = {
    "MY_MODEL_LOGIN": "sk-planted-model-0001",  # by a name that does not say that it is a key
    "JUDGE_API_KEY": "sk-planted-judge-0002",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20planted-otlp-0003",
    "PGPASSWORD": "planted-database-0004",
    "TUNER_PASSWORD": "planted-dashboard-0005",
    "SERVE_KEY": "planted-clients-0006",
    "HF_TOKEN": "planted-hub-0007",
}
MARK = "planted-"
STUDY = """\
format_version: 1
name: leaky
task: {{name: jsonl, path: questions.jsonl, examples: 3, holdout: 2}}
search_space: space.yaml
models:
  m: {{model: openai/loopback, api_base: "{api_base}", api_key_env: MY_MODEL_LOGIN, max_retries: 1}}
  j: {{model: hosted_vllm/loopback, api_base: "{api_base}", api_key_env: JUDGE_API_KEY, max_retries: 1}}
objectives: [accuracy, tokens_total]
sampler: {{name: random, seed: 3}}
budget: {{trials: 4}}
"""
SPACE = """\
format_version: 1
name: s
workflows:
  direct: {max_tokens: [16, 32, 48]}
  reflexion: {max_steps: [1, 2], feedback: [self], judge_model: [j]}
"""
QUESTIONS = "".join(
    json.dumps({"question": f"Question {n}?", "answer": "forty-two"}) + "\n" for n in range(8)
)
SCRIPT = ["200"] * 4 + [
    "200",
    "echo-answer",
    "200",
    "echo",
    "200",
    "429:0",
    "200",
    "200",
    "500",
    "200",
    "no-model",
] * 12
"""A server that fails on and on is waited for, so it does not."""


class Receiver(ThreadingHTTPServer):
    """Takes what is sent to it, as a collector of traces does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[bytes] = []


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    threading.Thread(target=server.serve_forever, args=[0.01]).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """All keys are in the environment."""
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def said() -> list[tuple[str, bytes]]:
    """What was said, and by what."""
    return []


@pytest.fixture
def call(tuner: Any, said: list[tuple[str, bytes]]) -> Callable[..., Any]:
    """Runs a command and keeps what it says."""

    def run(*arguments: object) -> Any:
        ended = tuner(*arguments)
        said.append((" ".join(map(str, arguments)), (ended.out + ended.err).encode()))
        assert "Traceback" not in ended.err
        return ended

    return run


def write_files(folder: Path) -> None:
    """What a study names."""
    folder.mkdir(exist_ok=True)
    (folder / "space.yaml").write_text(SPACE)
    (folder / "questions.jsonl").write_text(QUESTIONS)


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file's bytes, and what its compressed parts unpack to."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        yield path.name, data
        if data.startswith(b"\x1f\x8b"):
            yield path.name, zlib.decompress(data, wbits=31)
        if data.startswith(b"SQLite"):
            with sqlite3.connect(path) as connection:
                for blob in blobs(connection):
                    try:
                        yield "trace", zlib.decompress(blob)
                    except zlib.error:  # no trace: a digest
                        continue
        for packed in re.findall(rb"[A-Za-z0-9+/]{400,}={0,2}", data):  # as pages hold them
            try:
                yield path.name, zlib.decompress(base64.b64decode(packed), wbits=47)
            except (ValueError, zlib.error):
                continue


def blobs(connection: sqlite3.Connection) -> Iterator[bytes]:
    """Every value of a database that is neither text nor a number."""
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in tables:
        for row in connection.execute(f"SELECT * FROM {table}"):
            yield from (value for value in row if isinstance(value, bytes))


def leaks(texts: list[tuple[str, bytes]]) -> list[str]:
    return [
        f"{name}: …{text[max(0, place - 80) : place + 40]!r}…"
        for name, text in texts
        if (place := text.find(MARK.encode())) >= 0
    ]


def ask(url: str, **headers: str) -> bytes:
    body = {"model": "best", "messages": [{"role": "user", "content": "Where?"}]}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **headers},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return bytes(reply.read())
    except urllib.error.HTTPError as error:
        return bytes(error.read())


def fill_dashboard(study: Path) -> None:
    """Have all written that `tuner dashboard` shows."""
    loaded = load_study(study)
    artifact_folder(loaded).mkdir()
    with closing(open_results(loaded)) as store:
        assert refresh(loaded, store, artifact_folder(loaded)).plots > 0


@pytest.mark.slow
def test_no_planted_key_is_left_anywhere(planted, call, said, serve, receiver, tmp_path):
    folder = tmp_path / "study"
    write_files(folder)
    with serve("--script", *SCRIPT, "--text", "It is forty-two") as api_base:
        study = folder / "study.yaml"
        study.write_text(STUDY.format(api_base=api_base))
        assert call("run", study, "--json").code == 0, said
        for verb in ("status", "front", "effects", "check"):
            call(verb, study)
            call(verb, study, "--json")
        for trial in range(4):
            call("show", study, trial)
            call("trace", study, trial)
            for example in ("0", "1", "2", "3", "4", "5", "6", "7"):
                call("trace", study, trial, example, "--full")
                call("trace", study, trial, example, "--json")
        call("compare", study)
        call("report", study, "--out", folder / "report.html")
        call("record", study, "--out", folder / "table.jsonl.gz")
        call("profile", study, "--out", folder / "profile")
        fill_dashboard(study)
        best = folder / "best.yaml"
        assert call("export", study, "--rule", "max-accuracy", "--out", best).code == 0
        call("export", study, "--format", "litellm-proxy", "--out", folder / "proxy.yaml")
        call("export", study, "--all", "--out", folder / "front")
        call("verify", best)
        call("forecast", best, "--queries-per-day", 1000)
        call("ask", best, "Where?")
        environment = {
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.server_port}",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true",
        }
        command = [sys.executable, "-c", "from tuner.cli import main; main()", "serve", best]
    # What the script has left of a new server's is all of it: an error, an answer, a wrong key of a client's.
    with serve("--script", *SCRIPT) as api_base:
        best.write_text(re.sub(r"http://127\.0\.0\.1:\d+/v1", api_base, best.read_text()))
        with subprocess.Popen(
            [*command, "--port", "0", "--api-key-env", "SERVE_KEY"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            url = process.stdout.readline().strip().removesuffix("/v1")
            for key in (PLANTED["SERVE_KEY"], PLANTED["SERVE_KEY"], "wrong"):
                said.append(("serve", ask(url, Authorization=f"Bearer {key}")))
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
            said.append(("serve", f"{out}{err}".encode()))
    assert receiver.bodies
    said += [("otlp", body) for body in receiver.bodies]
    said += contents(tmp_path)
    assert leaks(said) == []
    # The server did say them: where a key was, there is a mark.
    assert any(f"Bearer {HIDDEN}".encode() in text for name, text in said if name == "trace")
    assert any(name == "trace" and b"no such key" in text for name, text in said)


SERVICE = """\
format_version: 1
port: 0
models:
  m: {{model: openai/loopback, api_base: "{api_base}", api_key_env: MY_MODEL_LOGIN, max_retries: 1}}
  j: {{model: hosted_vllm/loopback, api_base: "{api_base}", api_key_env: JUDGE_API_KEY, max_retries: 1}}
"""


@pytest.mark.slow
def test_a_service_keeps_and_tells_no_key(planted, tuner, call, said, serve, tmp_path, monkeypatch):
    mine, its = tmp_path / "mine", tmp_path / "its"
    write_files(mine)
    its.mkdir()
    with serve("--script", *SCRIPT, "--text", "It is forty-two") as api_base:
        (its / "service.yaml").write_text(SERVICE.format(api_base=api_base))
        study = mine / "study.yaml"
        study.write_text(STUDY.format(api_base=api_base))
        token = tuner("up", its / "service.yaml", "--add-user", "anna").out.strip()
        with subprocess.Popen(
            [sys.executable, "-c", "from tuner.cli import main; main()", "up", its / "service.yaml"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            monkeypatch.setenv("TUNER_SERVICE", address)
            monkeypatch.setenv("TUNER_TOKEN", token)
            call("submit", study)
            assert "done: all 4 trials are done" in call("logs", study, "--follow").out
            call("logs", study, "--json")
            call("studies")
            call("studies", "--json")
            for path in (
                "/studies/leaky",
                "/studies/leaky/front",
                "/models",
                "/metrics",
                "/openapi.json",
            ):
                given = {"Authorization": f"Bearer {token}"}
                with urllib.request.urlopen(
                    urllib.request.Request(address + path, headers=given)
                ) as reply:
                    said.append((path, reply.read()))
            monkeypatch.setenv("TUNER_TOKEN", "planted-token-0008")
            call("studies")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
            said.append(("up", f"{out}{err}".encode()))
    said += contents(tmp_path)
    assert leaks(said) == []
    assert [name for name, text in said if token.encode() in text] == []
    assert any(f"Bearer {HIDDEN}".encode() in text for name, text in said if name == "trace")


def refusal(tuner, tmp_path: Path, **changes: str) -> str:
    write_files(tmp_path)
    text = STUDY.format(api_base="http://127.0.0.1:9/v1")
    for old, new in changes.values():  # type: ignore[misc]
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "study.yaml").write_text(text)
    ended = tuner("check", tmp_path / "study.yaml")
    assert ended.code == 2
    assert MARK not in ended.err
    return str(ended.err)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("api_key_env: MY_MODEL_LOGIN", "api_key: sk-planted-1"), "hint: did you mean api_key_env?"),
        (("http://127.0.0.1:9", "http://me:planted-1@127.0.0.1:9"), "holds a password, which belongs in no file"),
        (("budget:", "storage: postgresql+psycopg://me:planted-1@127.0.0.1:9/x\nbudget:"), "the environment variable PGPASSWORD has it"),
        (("budget:", "storage: 'nonsense//me:planted-1@x'\nbudget:"), "is no database URL"),
    ],
)  # fmt: skip
def test_a_key_in_a_study_is_refused_and_not_said(tuner, tmp_path, change, told):
    assert told in refusal(tuner, tmp_path, change=change)


def test_secrets_are_known_by_the_names_of_their_variables(monkeypatch):
    for name in os.environ:
        monkeypatch.delenv(name)
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MONKEY_BUSINESS", "not-planted")
    monkeypatch.setenv("SHORT_KEY", "none")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/home/me/key.json")
    found = secrets()
    assert set(PLANTED.values()) - {PLANTED["MY_MODEL_LOGIN"]} <= set(found)
    assert "planted-otlp-0003" in found
    assert not {"not-planted", "none", "/home/me/key.json"} & set(found)
    assert hide("a planted-hub-0007 b") == f"a {HIDDEN} b"
    assert hide("sk-planted-model-0001", ["sk-planted-model-0001"]) == HIDDEN


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 100])
def test_a_secret_that_comes_in_pieces_is_not_passed_on(size):
    text = "It is sk-some-secret, not sk-some-other, sk-some-"
    veil = Veil(["sk-some-secret"])
    pieces = [veil.pass_on(text[start : start + size]) for start in range(0, len(text), size)]
    assert "".join([*pieces, veil.end()]) == text.replace("sk-some-secret", HIDDEN)
