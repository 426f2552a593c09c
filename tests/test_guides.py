"""What the guides in docs/ say is true: their commands run, their Python runs, their studies load."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from tuner.cli import VERBS
from tuner.cli import make_app
from tuner.measure import between
from tuner.spec import load_study
from tuner.study import run_study
from tuner.table import Table
from workflows import AgentConfig

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
TABLE = ROOT / "benchmarks" / "tables" / "quickstart.jsonl.gz"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
FENCES = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)

# A replay of recorded answers: whole, and done within seconds.
STUDY = f"""\
format_version: 1
name: guide
task: {{name: villages, examples: 16, holdout: 20, seed: 7}}
search_space: {ROOT / "search_spaces" / "quickstart.yaml"}
models:
  smollm2-135m: {{serve: llama.cpp, weights: smollm2-135m-instruct}}
objectives: [accuracy, latency_p50_s, energy_wh]
sampler: {{name: random, seed: 1}}
racing: false
budget: {{trials: 12}}
executor: {{replay: {TABLE}}}
storage: sqlite:///STORAGE/tuner.db
"""

ELSEWHERE = {
    "python3 -m venv .venv": "the environment of the tests is one",
    ". .venv/bin/activate": "likewise",
    "benchmarks/gpu.sh": "needs a GPU",
    "tuner record study.yaml --out table.jsonl.gz": "a replay is not recorded; tests/tuner/test_record.py records",
    "tuner record study.yaml --out table.jsonl.gz --whole-space": "likewise",
    "tuner verify best.yaml": "its outcome is the machine's; tests/tuner/test_verify.py verifies",
    "echo $?": "belongs to the command before it",
    "tuner compare tpe.yaml pooled.yaml": "needs two studies; tests/tuner/test_compare.py compares them",
    "pip install 'tuner[ray,postgres]'": "the environment of the tests has them",
    "ray start --head --port 6379": "listens beyond this machine; tests/tuner/executors/test_ray.py has a cluster on loopback",
    "ray start --address HEAD:6379 --num-gpus 8": "likewise",
    "tuner up service.yaml": "tests/tuner/service/test_up.py starts services, submits to them and watches",
    "tuner up service.yaml --add-user anna": "likewise",
    "tuner up service.yaml --add-user bert --priority 2": "likewise",
    "tuner submit study.yaml": "likewise",
    "tuner studies": "likewise",
    "tuner logs guide --follow": "likewise",
}
"""Commands that are not run here, and why."""


def commands(page: str) -> list[tuple[str, str]]:
    """Each command of a page with what the page shows as its output."""
    found = []
    for language, text in FENCES.findall((DOCS / page).read_text()):
        if language not in ("console", "text", "sh"):
            continue
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            lines = part.split("\n")
            count = 1 + next(n for n, line in enumerate(lines) if not line.endswith("\\"))
            found.append(("\n".join(lines[:count]), "\n".join(lines[count:])))
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study that has been run, under the names that the guides give it."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "studies").mkdir()
    for name in ("study.yaml", "quickstart.yaml", "studies/quickstart.yaml"):
        (folder / name).write_text(STUDY.replace("STORAGE", str(folder)))
    run_study(load_study(folder / "study.yaml"))
    return folder


@pytest.fixture
def desk(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to do as one likes with."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    for path in (*tmp_path.glob("*.yaml"), *tmp_path.glob("studies/*.yaml")):
        path.write_text(path.read_text().replace(str(finished), str(tmp_path)))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_the_commands_of_a_guide_run(page: str, desk: Path, loopback: str) -> None:
    if page == "custom-workflows.md":
        pytest.skip("tests/workflows/test_custom.py runs this page")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    serving: list[subprocess.Popen[str]] = []
    try:
        for command, shown in commands(page):
            if command in ELSEWHERE or command.startswith(("pip install", ".venv/bin/pip install")):
                continue
            is_mistake = shown.startswith("error: ")
            if file := re.fullmatch(r"cat (\w+\.py)", command):
                text = shown.partition("\n```")[0].replace("http://127.0.0.1:8000/v1", loopback)
                (desk / file[1]).write_text(text)
                continue
            if re.match(r"tuner (serve|dashboard)\b", command) and not is_mistake:
                stop(serving)
                serving.append(start(command, desk, environment))
                continue
            ran = subprocess.run(
                ["bash", "-o", "pipefail", "-c", command],
                cwd=desk,
                env=environment,
                capture_output=True,
                text=True,
            )
            expected = 2 if is_mistake else 0
            assert ran.returncode == expected, f"$ {command}\n{ran.stdout}{ran.stderr}"
    finally:
        stop(serving)


def start(command: str, folder: Path, environment: dict[str, str]) -> "subprocess.Popen[str]":
    """A server that has said where it is."""
    process = subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("http")
    return process


def stop(serving: list["subprocess.Popen[str]"]) -> None:
    while serving:
        process = serving.pop()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


@pytest.mark.parametrize("page", [*PAGES, *(f"tasks/{p.name}" for p in DOCS.glob("tasks/*.md"))])
def test_links_lead_somewhere(page: str) -> None:
    path = DOCS / page
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_the_map_names_every_guide(page: str) -> None:
    assert page == "README.md" or f"({page})" in (DOCS / "README.md").read_text()


def test_every_verb_and_option_is_explained() -> None:
    import typer.main

    page = (DOCS / "commands.md").read_text()
    for verb, command in typer.main.get_command(make_app()).commands.items():  # type: ignore[attr-defined]
        section = re.search(rf"^## tuner {verb}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
        assert section, verb
        for option in command.params:
            for name in option.opts:
                if name.startswith("--") and name != "--help":
                    assert f"`{name}" in section[1], f"{verb} {name}"
    assert set(re.findall(r"^## tuner (\w+)", page, flags=re.MULTILINE)) == set(VERBS)


def example(page: str) -> str:
    """The first piece of Python on a page."""
    return next(
        text for language, text in FENCES.findall((DOCS / page).read_text()) if language == "python"
    )


def module_of(page: str, folder: Path) -> ModuleType:
    """The Python of a page as a module."""
    path = folder / f"{Path(page).stem.replace('-', '_')}.py"
    path.write_text(example(page))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_the_worked_example_of_a_task_works(tmp_path: Path) -> None:
    module = module_of("adding-a-task.md", tmp_path)
    places = [("Portugal", "Lisbon"), ("Peru", "Lima"), ("Kenya", "Nairobi"), ("Italy", "Rome")]
    (tmp_path / "capitals.csv").write_text("".join(f"{a},{b}\n" for a, b in places))
    task = module.load(module.Options(path="capitals.csv", examples=2, holdout=1), tmp_path)
    asked = [*task.search, *task.holdout]
    assert {example.question for example in asked} == {"Peru", "Kenya", "Italy"}
    (right,) = asked[0].answers
    assert await task.score(asked[0], right) == 1.0
    assert await task.score(asked[0], "Atlantis") == 0.0
    (tmp_path / "capitals.csv").write_text("Peru\n")
    with pytest.raises(module.DataError, match="line 1: expected country,capital"):
        module.load(module.Options(path="capitals.csv", examples=2, holdout=1), tmp_path)


def test_the_worked_example_of_a_meter_works(tmp_path: Path) -> None:
    module = module_of("adding-a-meter.md", tmp_path)
    battery = tmp_path / "BAT0"
    battery.mkdir()
    spec = module.BatterySpec(battery=str(battery))
    with pytest.raises(module.UserError, match="cannot be read"):
        spec.open(pid=None, base=tmp_path)
    (battery / "status").write_text("Discharging\n")
    (battery / "energy_now").write_text("50000000\n")
    meter = spec.open(pid=None, base=tmp_path)
    first = meter.read()
    time.sleep(0.01)
    (battery / "energy_now").write_text("49000000\n")
    reading = between(meter, first, meter.read())
    assert reading.gross_j == pytest.approx(3600)
    assert reading.source == "battery"
    (battery / "status").write_text("Charging\n")
    assert between(meter, first, meter.read()).problem == "the battery says Charging"


@pytest.mark.slow
def test_the_python_of_the_guide_to_tables_runs(tmp_path: Path) -> None:
    code = example("tables.md").replace("table.jsonl.gz", str(TABLE))
    names: dict[str, object] = {}
    exec(compile(code, "tables.md", "exec"), names)
    assert isinstance(names["table"], Table)
    assert isinstance(names["table"].configs[0], AgentConfig)
