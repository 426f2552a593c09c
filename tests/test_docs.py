"""What the README says is true: its commands exist, its files load, its code runs."""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from typer.main import get_command

import tuner
from tuner.cli import VERBS
from tuner.cli import make_app
from tuner.objectives import OBJECTIVES
from tuner.openai_api.metrics import Metrics
from tuner.rules import RULES
from tuner.samplers import SAMPLERS
from tuner.serving import ENGINES
from tuner.space import load_space
from tuner.spec import load_study
from tuner.tasks import TASKS
from tuner.tasks import TaskOptions
from tuner.tasks import task_options
from workflows import WORKFLOWS
from workflows.agent_pack import AgentPack
from workflows.base import PromptParams
from workflows.config import AgentConfig
from workflows.config import AgentFile
from workflows.config import ExportedModel
from workflows.config import ModelSettings
from workflows.config import dump_agent_file
from workflows.table import workflow_kind

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCKS if found == language]


def test_the_first_screen_is_the_two_commands_and_what_they_print() -> None:
    commands = [text.strip() for language, text in BLOCKS if language == "console"]
    assert commands[:2] == ["$ make quickstart", "$ make test"]
    before = README[: README.index("$ make quickstart")]
    assert "```" not in before.removesuffix("```console\n")
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert {"quickstart", "test", "check"} <= set(targets)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_readme(verb: str) -> None:
    assert f"`tuner {verb}" in README


def test_every_command_in_the_readme_exists() -> None:
    for verb in re.findall(r"`tuner (\w+)", README):
        assert verb in VERBS


@pytest.mark.parametrize("name", [*OBJECTIVES, *SAMPLERS, *TASKS, *WORKFLOWS, *RULES])
def test_every_name_that_a_study_may_use_is_in_the_readme(name: str) -> None:
    assert f"`{name}`" in README


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_table_of_workflows_lists_their_knobs(name: str) -> None:
    own = set(workflow_kind(name).params.model_fields) - set(PromptParams.model_fields)
    row = next(line for line in README.splitlines() if line.startswith(f"| `{name}`"))
    listed = set(re.findall(r"`(\w+)`", row.rsplit("|", 2)[1]))
    for other in listed & set(WORKFLOWS):  # those of another and more
        listed |= set(workflow_kind(other).params.model_fields) - set(PromptParams.model_fields)
        listed.remove(other)
    assert own == listed


def test_the_files_in_the_readme_load(tmp_path: Path) -> None:
    study_text, task_text, space_text, models_text = blocks("yaml")
    (tmp_path / "my_space.yaml").write_text(space_text)
    models = r"models:\n(?:  .*\n)+"
    for text in (
        study_text,
        re.sub(r"task: .*\n", task_text, study_text),
        re.sub(models, models_text, study_text),
    ):
        (tmp_path / "study.yaml").write_text(text)
        assert load_study(tmp_path / "study.yaml").spec.name == "hotpot-llama"


def test_the_studies_in_the_guide_to_servers_load(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "serving.md").read_text()
    space = next(text for text in blocks("yaml") if "workflows:" in text)
    (tmp_path / "my_space.yaml").write_text(space)
    served = {}
    for text in re.findall(r"```yaml\n(.*?)```", guide, flags=re.DOTALL):
        (tmp_path / "study.yaml").write_text(text)
        study = load_study(tmp_path / "study.yaml")
        (model,) = study.spec.models.values()
        served[model.serve] = len(study.variants)  # type: ignore[union-attr]
    assert served == {"vllm": 6, "sglang": 8}


def test_the_guide_to_servers_names_every_engine_and_key() -> None:
    guide = (ROOT / "docs" / "serving.md").read_text()
    for name, engine in ENGINES.items():
        assert f"`{name}`" in guide
        for key in engine.model_fields:
            assert f"`{key}`" in guide, f"{name}: {key}"


@pytest.mark.slow
def test_the_python_in_the_readme_runs(tmp_path: Path, loopback: str) -> None:
    (code,) = blocks("python")
    agent = AgentFile(
        format_version=1,
        config=AgentConfig(workflow="direct", model="m"),
        models={"m": ExportedModel(settings=ModelSettings(model="openai/loopback"))},
        pack=AgentPack(instruction="Answer."),
    )
    dump_agent_file(agent, tmp_path / "best.yaml")
    code = code.replace("http://127.0.0.1:8000/v1", loopback)
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ran.stdout.endswith(" 1\n")


@pytest.mark.parametrize("name", tuner.__all__)
def test_the_names_of_the_python_interface_have_docstrings(name: str) -> None:
    assert getattr(tuner, name).__doc__


async def test_the_worked_example_of_a_workflow_works(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "adding-a-workflow.md").read_text()
    found = re.findall(r"```(\w+)\n(.*?)```", page, flags=re.DOTALL)
    workflow, test = (text for language, text in found if language == "python")
    (line,) = (text for language, text in found if language == "text")
    (stanza,) = (text for language, text in found if language == "yaml")
    name, place = re.fullmatch(r'\s*"(\w+)": "([\w.:]+)",\s*', line).groups()  # type: ignore[union-attr]
    module = ModuleType(place.partition(":")[0])
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(workflow, module.__name__, "exec"), module.__dict__)
    monkeypatch.setitem(WORKFLOWS, name, place)  # type: ignore[arg-type]
    names: dict[str, Any] = {}
    exec(compile(test, "test", "exec"), names)
    for function, body in names.items():
        if function.startswith("test_"):
            await body()
    space = tmp_path / "space.yaml"
    space.write_text(f"format_version: 1\nname: s\nworkflows:\n{stanza}")
    assert load_space(space).size(["m"]) == 5 * 3


@pytest.mark.parametrize("verb", ["export", "serve", "verify"])
def test_the_guide_to_production_has_every_option(verb: str) -> None:
    guide = (ROOT / "docs" / "production.md").read_text()
    command = get_command(make_app()).commands[verb]  # type: ignore[attr-defined]
    for option in command.params:
        if option.param_type_name == "option" and option.name != "help":
            assert option.opts[0] in guide, f"tuner {verb} {option.opts[0]}"


def test_the_guide_to_production_has_every_series() -> None:
    guide = (ROOT / "docs" / "production.md").read_text()
    file = AgentFile(
        format_version=1,
        config=AgentConfig(workflow="direct", model="m"),
        models={"m": ExportedModel(settings=ModelSettings(model="openai/loopback"))},
        pack=AgentPack(instruction="Answer."),
    )
    text, _ = Metrics(file, tools=(), metered=True).text({"accept": "application/openmetrics-text"})
    for family in text_string_to_metric_families(text.decode()):
        assert f"`{family.name}" in guide


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_a_page(name: str) -> None:
    page = (ROOT / "docs" / "tasks" / f"{name}.md").read_text()
    for option in task_options(name).model_fields.keys() - TaskOptions.model_fields.keys():
        assert f"`{option}`" in page
