"""An exported agent put to work: what a file may have started, and what is said of meters that do not work."""

import pytest

from tuner.deploy import deploy
from tuner.errors import UserError
from tuner.serving import Vllm
from workflows import AgentConfig
from workflows import AgentPack
from workflows import ConfigError
from workflows import ModelSettings
from workflows.config import AgentFile
from workflows.config import ExportedModel
from workflows.config import dump_agent_file


def write(path, *, serve=None, settings=None, workflow="direct", **provenance):
    file = AgentFile(
        format_version=1,
        config=AgentConfig(workflow=workflow, model="m"),
        models={
            "m": ExportedModel(
                settings=ModelSettings(**(settings or {"model": "hosted_vllm/m"})), serve=serve
            )
        },
        pack=AgentPack(instruction="Answer."),
        provenance=provenance,
    )
    dump_agent_file(file, path)
    return path


def vllm(**changes):
    recorded = Vllm(model="some/model").record({"model": "some/model", "digest": None}, None)
    return {**recorded, **changes}


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("command", {"command": ["/bin/sh", "-c", "touch ran"]}),
        ("command", {"command": ["vllm", "serve", "--load-format", "x"]}),
        ("command", {"command": ["/stranger/vllm", "serve"]}),
        ("command", {"command": "vllm serve"}),
        ("arguments", {"arguments": ["--trust-remote-code"]}),
        ("environment", {"environment": {"LD_PRELOAD": "/stranger.so"}}),
    ],
)
def test_a_file_starts_no_program_of_its_own_choosing(tmp_path, monkeypatch, key, changes):
    path = write(tmp_path / "best.yaml", serve=vllm(**changes))
    with pytest.raises(UserError, match=rf"models\.m\.serve\.{key}: has a program started") as no:
        deploy(path).__enter__()
    assert "--allow-custom" in str(no.value.hint)


def test_a_file_that_was_allowed_to_may(tmp_path, stand_in):
    path = write(tmp_path / "best.yaml", serve=vllm(command=list(stand_in.command)))
    with pytest.raises(UserError, match="has a program started"):
        deploy(path).__enter__()
    with deploy(path, allow_custom=True) as deployed:
        deployed.running["m"].endpoint.check()
        assert len(stand_in.starts()) == 1
        assert deployed.running["m"].endpoint.pid is not None


def test_the_usual_program_of_an_engine_needs_no_allowance(tmp_path):
    path = write(tmp_path / "best.yaml", serve=vllm())
    with pytest.raises(UserError, match="needs the program 'vllm', which is not there"):
        deploy(path).__enter__()


def test_a_mistake_in_the_file_shows_before_a_server_is_started(tmp_path, stand_in):
    path = write(tmp_path / "b.yaml", serve=vllm(command=list(stand_in.command)), workflow="magic")
    with pytest.raises(ConfigError, match="unknown workflow 'magic'"):
        deploy(path, allow_custom=True).__enter__()
    assert stand_in.starts() == []


@pytest.mark.parametrize("meter", [{"cpu_estimate": {}}, {"nvml": ["GPU-not-here"]}])
def test_a_meter_that_does_not_work_here_is_none_and_said(tmp_path, api_base, meter):
    settings = {"model": "openai/loopback", "api_base": api_base}
    path = write(tmp_path / "best.yaml", settings=settings, energy={"m": {"meter": meter}})
    said = []
    with deploy(path, say=said.append) as deployed:
        assert deployed.running["m"].meter.source == "none"
    assert any("model m: its energy cannot be" in text for text in said)


def test_a_meter_that_is_none_of_ours_is_refused(tmp_path, api_base):
    settings = {"model": "openai/loopback", "api_base": api_base}
    path = write(tmp_path / "best.yaml", settings=settings, energy={"m": {"meter": {"magic": 1}}})
    with pytest.raises(UserError, match=r"provenance\.energy\.m\.meter: .*magic"):
        deploy(path).__enter__()
