"""`tuner serve` in a process of its own, as a user starts it, before a loopback model server."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import AbstractContextManager
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from tuner.deploy import deploy
from tuner.openai_api.app import Limits
from tuner.openai_api.app import make_app
from tuner.openai_api.server import address
from tuner.openai_api.server import bind
from workflows import AgentConfig
from workflows import AgentPack
from workflows import Document
from workflows import ModelSettings
from workflows.config import AgentFile
from workflows.config import ExportedModel
from workflows.config import dump_agent_file


@dataclass(frozen=True)
class Serving:
    """A `tuner serve` that runs."""

    base_url: str
    process: "subprocess.Popen[str]"
    said: list[str]
    """Lines of its stderr so far."""

    @property
    def root(self) -> str:
        return self.base_url.removesuffix("/v1")


Serve = Callable[..., AbstractContextManager[Serving]]


def write_agent(path: Path, api_base: str, workflow: str = "cot", **params: object) -> None:
    """An exported agent on a model at that address, with one page to look up."""
    agent = AgentFile(
        format_version=1,
        config=AgentConfig(workflow=workflow, model="small", params=params),
        models={
            "small": ExportedModel(
                settings=ModelSettings(model="openai/loopback", api_base=api_base, max_retries=0)
            )
        },
        pack=AgentPack(
            instruction="Answer.",
            toolkits=("browser",),
            documents=(Document(title="Anna", sentences=("Anna is a smith.",)),),
        ),
        provenance={"study": "small-study", "trial": 3},
    )
    dump_agent_file(agent, path)


@contextmanager
def serving(
    folder: Path, api_base: str, *arguments: str, workflow: str = "cot", **params: object
) -> Iterator[Serving]:
    """`tuner serve` with these arguments, until the block ends."""
    write_agent(folder / "best.yaml", api_base, workflow, **params)
    command = [
        str(Path(sys.executable).parent / "tuner"), "serve", "best.yaml", "--port", "0", *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "THE_KEY": "sk-right", "PYTHONWARNINGS": "default"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:  # fmt: skip
        assert process.stdout is not None
        said: list[str] = []
        reading = threading.Thread(target=lambda: said.extend(process.stderr or ()))
        reading.start()
        try:
            base_url = process.stdout.readline().strip()
            assert base_url, said
            yield Serving(base_url, process, said)
        finally:
            process.terminate()
            process.wait(20)
            reading.join()


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Starts `tuner serve` in a new folder."""
    return lambda *arguments, **more: serving(tmp_path, *arguments, **more)


@pytest.fixture
def serve_here(tmp_path: Path) -> Callable[..., AbstractContextManager[str]]:
    """The same app in a thread of this process, which starts in less time; gives its base_url."""

    @contextmanager
    def start(
        api_base: str, *, workflow: str = "cot", params: Any = None, **limits: Any
    ) -> Iterator[str]:
        write_agent(tmp_path / "best.yaml", api_base, workflow, **(params or {}))
        with bind("127.0.0.1", 0) as listening, deploy(tmp_path / "best.yaml") as deployed:
            app = make_app(deployed, name="best", limits=Limits(**limits), api_key=None)
            server = uvicorn.Server(uvicorn.Config(app, lifespan="on", log_level="warning"))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()
            try:
                yield address(listening)
            finally:
                server.should_exit = True
                thread.join()

    return start


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, api_base: str) -> Iterator[Serving]:
    """An agent that answers at once."""
    with serving(tmp_path_factory.mktemp("served"), api_base) as running:
        yield running
