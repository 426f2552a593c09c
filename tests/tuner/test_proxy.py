"""What is written for LiteLLM's proxy loads in its own router, and reaches the model."""

import json

import pytest
import yaml

from tuner.proxy import dump_proxy_config
from tuner.proxy import proxy_config
from workflows import AgentConfig
from workflows import AgentPack
from workflows import ModelSettings
from workflows.config import AgentFile
from workflows.config import ExportedModel
from workflows.llm import import_litellm

STARTED = {"engine": "llama.cpp", "weights": "smollm2-135m-instruct"}


def agent(**models):
    return AgentFile(
        format_version=1,
        config=AgentConfig(workflow="direct", model=next(iter(models))),
        models={
            name: ExportedModel(settings=ModelSettings(**settings), serve=serve)
            for name, (settings, serve) in models.items()
        },
        pack=AgentPack(instruction="Answer."),
        provenance={"study": "s", "trial": 3},
    )


async def test_litellms_router_loads_it_and_gets_answers(tmp_path, api_base, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "sk-do-not-tell")
    monkeypatch.setenv("LLAMA_8B_API_BASE", api_base)
    file = agent(
        small=({"model": "openai/loopback", "api_base": api_base, "api_key_env": "SECRET_KEY"}, None),
        **{"llama-8b": ({"model": "hosted_vllm/llama-8b"}, STARTED)},
    )  # fmt: skip
    path = tmp_path / "litellm.yaml"
    dump_proxy_config(file, path)
    written = path.read_text()
    assert "sk-do-not-tell" not in written
    assert "api_key: os.environ/SECRET_KEY" in written
    assert "api_base: os.environ/LLAMA_8B_API_BASE" in written
    litellm = import_litellm()  # not by itself: limits are set before it is imported
    router = litellm.Router(**yaml.safe_load(written))
    for name in ("small", "llama-8b"):
        reply = await router.acompletion(model=name, messages=[{"role": "user", "content": "Hi"}])
        assert reply.choices[0].message.content.endswith("forty-two")
    await litellm.close_litellm_async_clients()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"model": "openai/gpt-4o", "api_key_env": "K"}, {"model": "openai/gpt-4o", "api_key": "os.environ/K"}),
        ({"model": "anthropic/c"}, {"model": "anthropic/c"}),
        ({"model": "hosted_vllm/m", "api_base": "http://h/v1"}, {"model": "hosted_vllm/m", "api_base": "http://h/v1", "api_key": "none"}),
    ],
)  # fmt: skip
def test_each_model_is_reached_as_it_was(settings, expected):
    (entry,) = proxy_config(agent(m=(settings, None)))["model_list"]
    patience = {"timeout": 120.0, "max_retries": 2}
    assert entry["litellm_params"] == {**expected, **patience}
    assert json.dumps(entry)
