import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import workflows
from workflows import AgentConfig
from workflows import AgentPack
from workflows import ConfigError
from workflows import ModelSettings
from workflows import ScriptedLLM
from workflows import build
from workflows.config import AgentFile
from workflows.config import ExportedModel
from workflows.config import dump_agent_file
from workflows.custom import kind as workflow_kind_of_own


def make(pack: AgentPack, workflow: str = "react", **params: Any) -> workflows.Agent:
    config = AgentConfig(workflow=workflow, model="m", params=params)
    return build(config, llms={"m": ScriptedLLM([])}, pack=pack)


def test_an_unknown_workflow_is_refused_with_the_known(pack: AgentPack) -> None:
    with pytest.raises(ConfigError, match=r"'magic'; known: direct, cot, self_consistency, react"):
        make(pack, "magic")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"max_steps": 0}, r"react\.max_steps: .*\(given: 0\)"),
        ({"max_steps": 7.0}, r"react\.max_steps: .*\(given: 7\.0\)"),
        ({"max_steps": True}, r"react\.max_steps: "),
        ({"thoughts": 1}, r"react\.thoughts: .*\(given: 1\)"),
        ({"temperature": False}, r"react\.temperature: "),
        ({"steps": 3}, r"react\.steps: .*\(given: 3\)"),
    ],
)
def test_a_bad_param_is_refused_by_name(
    pack: AgentPack, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make(pack, **params)
    assert "max_steps" in str(caught.value.hint)


def test_a_whole_number_will_do_for_a_fraction(pack: AgentPack) -> None:
    make(pack, temperature=0)


def test_an_unknown_toolkit_is_refused(pack: AgentPack) -> None:
    with pytest.raises(ConfigError, match="unknown toolkit 'oracle'") as refused:
        make(pack.model_copy(update={"toolkits": ("oracle",)}))
    assert refused.value.hint.startswith("known: browser, calculator")


def model(serve: dict[str, Any] | None = None) -> ExportedModel:
    settings = ModelSettings(model="hosted_vllm/x", api_base="http://127.0.0.1:9/v1")
    return ExportedModel(settings=settings, serve=serve)


def exported(tmp_path: Path, pack: AgentPack, **changes: Any) -> Path:
    content: dict[str, Any] = {
        "format_version": 1,
        "config": AgentConfig(workflow="react", model="m", params={"max_steps": 2}),
        "models": {"m": model()},
        "pack": pack,
    }
    path = tmp_path / "best.yaml"
    dump_agent_file(AgentFile(**{**content, **changes}), path)
    return path


def test_load_builds_the_exported_agent(tmp_path: Path, pack: AgentPack) -> None:
    agent = workflows.load(exported(tmp_path, pack))
    assert isinstance(agent, workflows.Agent)
    assert set(agent.open_session().tools) == {"search", "lookup", "calculate"}
    assert agent.open_session().pack == pack


def test_a_server_that_the_tuner_started_needs_an_address(tmp_path: Path, pack: AgentPack) -> None:
    served = model(serve={"serve": "llama.cpp", "weights": "smol"})
    path = exported(tmp_path, pack, models={"m": served})
    with pytest.raises(ConfigError, match=r"best\.yaml: models\.m: ") as caught:
        workflows.load(path)
    assert "api_base=" in str(caught.value.hint)
    workflows.load(path, api_base="http://127.0.0.1:9/v1")
    workflows.load(path, api_base={"m": "http://127.0.0.1:9/v1"})


def test_a_config_that_cannot_be_built_is_refused_by_file(tmp_path: Path, pack: AgentPack) -> None:
    path = exported(tmp_path, pack, config=AgentConfig(workflow="magic", model="m"))
    with pytest.raises(ConfigError, match=r"best\.yaml: unknown workflow 'magic'"):
        workflows.load(path)


async def test_tools_may_be_made_to_take_as_long_as_those_behind_a_network(pack: AgentPack) -> None:
    config = AgentConfig(workflow="react", model="m", params={"thoughts": False})
    replies = [" search[Anna]", " finish[Oak]"]
    waits = []
    for delay_s in (0.0, 0.05):
        agent = build(config, llms={"m": ScriptedLLM(replies)}, pack=pack, tool_delay_s=delay_s)
        outcome = await agent.run("Where is Anna?")
        (seen,) = [span for span in outcome.spans if span.kind == "tool"]
        waits.append((seen.end_s - seen.start_s, seen.output))
    assert waits[0][1] == waits[1][1]
    assert waits[0][0] < 0.05 <= waits[1][0]


def test_a_delayed_kit_forks_like_the_one_within(pack: AgentPack) -> None:
    agent = build(
        AgentConfig(workflow="react", model="m"),
        llms={"m": ScriptedLLM([])},
        pack=pack,
        tool_delay_s=0.1,
    )
    tools = agent.open_session().tools
    assert list(tools.fork()) == list(tools)


OWN = """\
async def answer(question, session):
    return question.upper()
"""


@pytest.mark.parametrize(
    "config",
    [
        AgentConfig(workflow="stranger_code:answer", model="m"),
        AgentConfig(workflow="cascade", model="m", params={"costly": "stranger_code:answer"}),
        AgentConfig(
            workflow="cascade",
            model="m",
            params={"cheap": "cascade", "cheap.cheap": "stranger_code:answer"},
        ),
    ],
)
def test_a_file_that_names_code_of_its_own_runs_none_of_it_unless_allowed(
    tmp_path: Path, pack: AgentPack, monkeypatch: pytest.MonkeyPatch, config: AgentConfig
) -> None:
    (tmp_path / "stranger_code.py").write_text(
        f"import pathlib\npathlib.Path('ran').touch()\n{OWN}"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "stranger_code", raising=False)
    workflow_kind_of_own.cache_clear()
    path = exported(tmp_path, pack, config=config)
    with pytest.raises(ConfigError, match=r"best\.yaml: runs code .* stranger_code:answer") as refused:  # fmt: skip
        workflows.load(path)
    assert "allow_custom=True" in str(refused.value.hint)
    assert not (tmp_path / "ran").exists()
    workflows.load(path, allow_custom=True)
    assert (tmp_path / "ran").exists()


def test_yaml_of_a_stranger_makes_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "best.yaml"
    path.write_text("format_version: 1\nconfig: !!python/object/apply:os.system ['touch ran']\n")
    with pytest.raises(ConfigError, match="not YAML"):
        workflows.load(path)


async def test_progress_is_heard_of_as_it_happens(pack: AgentPack) -> None:
    config = AgentConfig(workflow="react", model="m", params={"max_steps": 3, "thoughts": False})
    llm = ScriptedLLM([" search[Anna]", " finish[Oak]"])
    heard: list[workflows.Span | workflows.Checkpoint] = []
    agent = build(config, llms={"m": llm}, pack=pack)
    outcome = await agent.run("Where is Anna?", on_progress=heard.append)
    spans = tuple(each for each in heard if isinstance(each, workflows.Span))
    rounds = tuple(each for each in heard if isinstance(each, workflows.Checkpoint))
    assert (spans, rounds) == (outcome.spans, outcome.checkpoints)
    assert [type(each).__name__ for each in heard[:3]] == ["Span", "Span", "Checkpoint"]


WITHOUT_TUNER = """\
import asyncio, sys
sys.modules["tuner"] = None  # importing it fails from here on
import workflows
agent = workflows.load("best.yaml")
outcome = asyncio.run(agent.run("What is six times seven?"))
print(outcome.answer, len(outcome.spans))
assert sys.modules["tuner"] is None
"""


@pytest.mark.slow
def test_an_exported_file_runs_where_there_is_no_tuner(tmp_path: Path, pack: AgentPack) -> None:
    loopback = Path(__file__).resolve().parents[2] / "benchmarks" / "loopback.py"
    with subprocess.Popen(
        [sys.executable, str(loopback)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["api_base"]
        settings = ModelSettings(model="openai/loopback", api_base=address)
        config = AgentConfig(workflow="cot", model="m")
        exported(tmp_path, pack, config=config, models={"m": ExportedModel(settings=settings)})
        command = [sys.executable, "-c", WITHOUT_TUNER]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        process.terminate()
    assert (done.returncode, done.stdout) == (0, "forty-two 1\n"), done.stderr
