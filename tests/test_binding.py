"""What this project starts listens on this machine only, unless it is told otherwise."""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from workflows import AgentPack
from workflows.config import AgentConfig
from workflows.config import AgentFile
from workflows.config import ExportedModel
from workflows.config import ModelSettings
from workflows.config import dump_agent_file

ROOT = Path(__file__).resolve().parents[1]
TUNER = [sys.executable, "-c", "from tuner.cli import main; main()"]
SERVICE = """\
format_version: 1
port: 0
models: {{lb: {{model: openai/loopback, api_base: "{api_base}"}}}}
"""


def listening(pid: int) -> set[str]:
    """Addresses on which a process and those that it started listen."""
    process = psutil.Process(pid)
    return {
        connection.laddr.ip
        for each in (process, *process.children(recursive=True))
        for connection in each.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }


@pytest.fixture
def folder(tmp_path: Path, loopback: str) -> Path:
    """With an exported agent, and a study that was never run."""
    settings = ModelSettings(model="openai/loopback", api_base=loopback)
    agent = AgentFile(
        format_version=1,
        config=AgentConfig(workflow="direct", model="m"),
        models={"m": ExportedModel(settings=settings)},
        pack=AgentPack(instruction="Answer."),
    )
    dump_agent_file(agent, tmp_path / "best.yaml")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        (*TUNER, "serve", "best.yaml", "--port", "0"),
        (sys.executable, str(ROOT / "benchmarks" / "loopback.py")),
    ],
    ids=["serve", "loopback"],
)
def test_a_server_listens_on_this_machine_only(folder: Path, command: tuple[str, ...]) -> None:
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert "127.0.0.1" in process.stdout.readline()
            assert listening(process.pid) == {"127.0.0.1"}
        finally:
            process.terminate()


@pytest.mark.slow
def test_the_dashboard_listens_on_this_machine_only(folder: Path, loopback: str) -> None:
    (folder / "space.yaml").write_text("format_version: 1\nname: s\nworkflows: {direct: {}}\n")
    rows = [json.dumps({"question": f"Question {n}?", "answer": "yes"}) for n in range(4)]
    (folder / "questions.jsonl").write_text("\n".join(rows))
    (folder / "study.yaml").write_text(
        "format_version: 1\nname: small\n"
        "task: {name: jsonl, path: questions.jsonl, examples: 2, holdout: 1}\n"
        "search_space: space.yaml\n"
        f'models: {{m: {{model: openai/loopback, api_base: "{loopback}"}}}}\n'
        "objectives: [accuracy, tokens_total]\nbudget: {trials: 1}\n"
    )
    ran = subprocess.run([*TUNER, "run", "study.yaml"], cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    with subprocess.Popen(
        [*TUNER, "dashboard", "study.yaml", "--port", "0"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("http://127.0.0.1:")
            deadline = time.monotonic() + 10
            while not (found := listening(process.pid)) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert found == {"127.0.0.1"}
        finally:
            process.terminate()


@pytest.mark.slow
def test_the_service_listens_on_this_machine_only(folder: Path, loopback: str) -> None:
    (folder / "service.yaml").write_text(SERVICE.format(api_base=loopback))
    with subprocess.Popen(
        [*TUNER, "up", "service.yaml"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "127.0.0.1" in line, process.communicate()[1]
            assert listening(process.pid) == {"127.0.0.1"}
        finally:
            process.terminate()
