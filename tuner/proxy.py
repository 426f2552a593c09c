"""The models of an exported agent as LiteLLM's proxy wants them: its `config.yaml`.

Apart from `export`, whose files carry the whole agent: a proxy serves models, to agents among others.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from tuner.errors import UserError
from workflows.config import AgentFile
from workflows.config import ExportedModel

HEAD = """\
# Models of trial {trial} of {study} for LiteLLM's proxy: litellm --config {file}
# Keys and addresses that are written os.environ/NAME come from the environment that the proxy is started in.
"""


def proxy_config(agent: AgentFile) -> dict[str, Any]:
    """`model_list`, an entry for each model, by the names that the study has for them. Keys are variables' names only.

    A server that the study had started itself is gone: where its successor answers is a variable too,
    as `os.environ/LLAMA_8B_API_BASE`.
    """
    return {"model_list": [_entry(name, model) for name, model in agent.models.items()]}


def dump_proxy_config(agent: AgentFile, path: Path) -> None:
    """Write `proxy_config` as YAML. Raises UserError for a place that cannot be written."""
    told = agent.provenance
    head = HEAD.format(trial=told.get("trial"), study=told.get("study"), file=path.name)
    text = yaml.safe_dump(proxy_config(agent), sort_keys=False, width=100)
    try:
        path.write_text(head + text, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"--out: {error.filename} cannot be written: {error.strerror}",
            hint="name a place in a folder that exists and may be written to",
        ) from None


def _entry(name: str, model: ExportedModel) -> dict[str, Any]:
    settings = model.settings
    params: dict[str, Any] = {"model": settings.model}
    if model.serve is not None:
        params["api_base"] = f"os.environ/{_variable(name)}_API_BASE"
    elif settings.api_base is not None:
        params["api_base"] = settings.api_base
    if settings.api_key_env is not None:
        params["api_key"] = f"os.environ/{settings.api_key_env}"
    elif "api_base" in params:
        params["api_key"] = (
            "none"  # a server of one's own wants none, and litellm's client wants one
        )
    params |= {"timeout": settings.timeout_s, "max_retries": settings.max_retries}
    return {
        "model_name": name,
        "litellm_params": params,
        "model_info": {"mode": settings.endpoint},
    }


def _variable(name: str) -> str:
    """A model's name as the environment may have it: LLAMA_8B."""
    return re.sub(r"\W+", "_", name).strip("_").upper()
