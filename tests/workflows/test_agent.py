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
    with pytest.raises(ConfigError, match=r"'oracle'; known: browser, calculator"):
        make(pack.model_copy(update={"toolkits": ("oracle",)}))


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
