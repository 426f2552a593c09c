"""Services: the app in this process, and `tuner up` in one of its own, before a loopback model server."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import closing
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from tuner.bundle import Bundle
from tuner.bundle import pack
from tuner.service.app import make_app
from tuner.service.book import Book
from tuner.service.engine import Engine
from tuner.service.spec import LoadedService
from tuner.service.spec import load_service
from tuner.spec import load_study

SERVICE = """\
format_version: 1
port: {port}
models:
  lb: {{model: openai/loopback, api_base: "{api_base}", max_retries: 1}}
  second: {{model: openai/other, api_base: "{api_base}"}}
  here: {{serve: llama.cpp, weights: smollm2-135m-instruct}}
{extra}
"""
SPACE = """\
format_version: 1
name: small
workflows:
  cot: {max_tokens: [64, 128, 256, 512]}
  self_consistency: {samples: {low: 1, high: 4}}
"""
STUDY = """\
format_version: 1
name: {name}
task: {{name: jsonl, path: ../data/questions.jsonl, examples: 8, holdout: 4}}
search_space: ../spaces/space.yaml
models: {{lb: {{model: openai/loopback, api_base: "{api_base}", max_retries: 0}}}}
objectives: [accuracy, tokens_total]
sampler: {{name: random, seed: 3}}
racing: false
budget: {{trials: {trials}}}
"""


def write_service(folder: Path, api_base: str, extra: str = "", port: int = 0) -> Path:
    """A service's file."""
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "service.yaml").write_text(SERVICE.format(api_base=api_base, extra=extra, port=port))
    return folder / "service.yaml"


def write_study(
    folder: Path,
    api_base: str,
    name: str = "small",
    trials: int = 3,
    replace: tuple[str, str] = ("", ""),
    space: str = SPACE,
) -> Path:
    """A study whose files lie in folders side by side; half of its questions are answered rightly."""
    for each in ("studies", "data", "spaces"):
        (folder / each).mkdir(exist_ok=True, parents=True)
    rows = [
        {"question": f"Question {n}?", "answer": "forty-two" if n % 2 else "seven"}
        for n in range(16)
    ]
    (folder / "data" / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "spaces" / "space.yaml").write_text(space)
    path = folder / "studies" / f"{name}.yaml"
    text = STUDY.format(name=name, api_base=api_base, trials=trials)
    path.write_text(text.replace(*replace))
    return path


def until(check: Callable[[], Any], seconds: float = 180.0) -> Any:
    """What is given once there is something."""
    ends = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < ends
        time.sleep(0.05)
    return found


@dataclass
class Api:
    """A service in this process, asked without a network."""

    client: TestClient
    book: Book
    engine: Engine
    service: LoadedService
    folder: Path
    api_base: str

    def bundle(self, name: str = "small", **more: Any) -> Bundle:
        """A study that may be submitted."""
        return pack(load_study(write_study(self.folder / "mine", self.api_base, name, **more)))

    def submit(self, name: str = "small", *, token: str | None = None, priority: float = 1.0, **more: Any) -> httpx.Response:  # fmt: skip
        """The service's answer to a study that was handed in."""
        content = {**self.bundle(name, **more).content(), "priority": priority}
        return self.ask("POST", "/studies", token=token, json=content)  # type: ignore[return-value]

    def ask(self, method: str, path: str, *, token: str | None = None, **more: Any) -> Any:
        """A request, with a token."""
        headers = {**more.pop("headers", {}), **({"Authorization": f"Bearer {token}"} if token else {})}  # fmt: skip
        return self.client.request(method, path, headers=headers, **more)

    def state(self, name: str) -> str:
        row = self.book.submission(name)
        assert row is not None
        return row.state

    def reach(self, name: str, *states: str, seconds: float = 180.0) -> None:
        """Wait until a study is in one of these states."""
        until(lambda: self.state(name) in states, seconds)


Run = Callable[..., Awaitable[None]]
Open = Callable[..., Any]


@pytest.fixture
def open_service(tmp_path: Path, api_base: str) -> Open:
    """Opens a service in this process; `run` stands in for what runs its studies."""

    @contextmanager
    def open_it(run: Run, *, extra: str = "", allow_custom: bool = False) -> Iterator[Api]:
        service = load_service(write_service(tmp_path / "service", api_base, extra))
        with closing(Book(service.storage_url)) as book:
            engine = Engine(service, book, run)
            app = make_app(service, book, engine, allow_custom=allow_custom)
            with TestClient(app, base_url="http://127.0.0.1") as client:
                yield Api(client, book, engine, service, tmp_path, api_base)

    return open_it


async def never(study: Any, slots: Any, *, weight: float, report: Any) -> None:
    """Runs for ever."""
    await asyncio.Event().wait()


@pytest.fixture
def api(open_service: Open) -> Iterator[Api]:
    """A service whose studies run for ever and do nothing."""
    with open_service(never) as found:
        yield found


@dataclass
class Up:
    """A `tuner up` that runs."""

    address: str
    process: "subprocess.Popen[str]"
    said: list[str] = field(default_factory=list)


TUNER = str(Path(sys.executable).parent / "tuner")


@contextmanager
def tuner_up(folder: Path, *arguments: str) -> Iterator[Up]:
    """`tuner up service.yaml` in this folder, until the block ends."""
    with subprocess.Popen(
        [TUNER, "up", "service.yaml", *arguments],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONWARNINGS": "default"},
    ) as process:
        assert process.stdout is not None
        up = Up("", process)
        reading = threading.Thread(target=lambda: up.said.extend(process.stderr or ()))
        reading.start()
        try:
            up.address = process.stdout.readline().strip()
            assert up.address, up.said
            yield up
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(30)
            reading.join()


@dataclass(frozen=True)
class Team:
    """A service that runs what its users submit."""

    up: Up
    folder: Path
    tokens: dict[str, str]
    api_base: str

    def client(self, user: str = "anna") -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.tokens[user]}"}
        return httpx.Client(base_url=self.up.address, headers=headers, timeout=60)

    def study(self, name: str, **more: Any) -> Path:
        return write_study(self.folder / "mine", self.api_base, name, **more)


@pytest.fixture(scope="session")
def team(tmp_path_factory: pytest.TempPathFactory, api_base: str) -> Iterator[Team]:
    """`tuner up` with two users, and a study that is done."""
    folder = tmp_path_factory.mktemp("team")
    service = load_service(write_service(folder, api_base))
    with closing(Book(service.storage_url)) as book:
        tokens = {name: book.add_user(name, 1.0) for name in ("anna", "bert")}
    with tuner_up(folder) as running:
        found = Team(running, folder, tokens, api_base)
        content = pack(load_study(found.study("first"))).content()
        with found.client() as client:
            assert client.post("/studies", json=content).status_code == 202
            until(lambda: client.get("/studies/first").json()["state"] == "done")
        yield found


@pytest.fixture
def as_anna(monkeypatch: pytest.MonkeyPatch, team: Team) -> None:
    """Has the command line ask the team's service."""
    monkeypatch.setenv("TUNER_SERVICE", team.up.address)
    monkeypatch.setenv("TUNER_TOKEN", team.tokens["anna"])


@pytest.fixture(name="wait")
def _wait() -> Callable[..., Any]:
    """`until`, for tests that cannot import it from here."""
    return until


@pytest.fixture(name="write_service")
def _write_service() -> Callable[..., Path]:
    """Likewise."""
    return write_service


@pytest.fixture(name="write_study")
def _write_study() -> Callable[..., Path]:
    """Likewise."""
    return write_study


@pytest.fixture
def pack_study() -> Callable[[Path], dict[str, Any]]:
    """A study as it is sent."""
    return lambda path: pack(load_study(path)).content()


@pytest.fixture
def start_up() -> Callable[..., Any]:
    """Starts `tuner up` in a folder."""
    return tuner_up


@pytest.fixture
def free_port() -> int:
    """One that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
