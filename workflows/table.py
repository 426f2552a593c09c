"""Workflows by name; below the workflows themselves, so that one can hand a question on to another."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from pydantic import ValidationError

from workflows.agent_pack import AgentPack
from workflows.base import Params
from workflows.base import Workflow
from workflows.errors import ConfigError

WORKFLOWS: Mapping[str, str] = {
    "direct": "workflows.direct:Direct",
    "cot": "workflows.cot:Cot",
    "self_consistency": "workflows.self_consistency:SelfConsistency",
    "react": "workflows.react:React",
    "reflexion": "workflows.reflexion:Reflexion",
    "lats": "workflows.lats:Lats",
    "llmcompiler": "workflows.llmcompiler:LLMCompiler",
    "tree_of_thoughts": "workflows.tree_of_thoughts:TreeOfThoughts",
    "cascade": "workflows.cascade:Cascade",
}
"""Beside these, any `module:function` is a workflow: see `workflows.custom`."""


@dataclass(frozen=True, slots=True)
class WorkflowKind:
    """A workflow as the table names it: what makes one, and the model of its params."""

    make: Any
    params: type[Params]


def workflow_kind(name: str) -> WorkflowKind:
    """The workflow of that name. Raises ConfigError that lists the known ones."""
    if ":" in name:
        kind: WorkflowKind = import_module("workflows.custom").kind(name)
        return kind
    if name not in WORKFLOWS:
        raise ConfigError(
            f"unknown workflow {name!r}; known: {', '.join(WORKFLOWS)}",
            hint="one of your own is module:function: docs/custom-workflows.md",
        )
    module, _, attribute = WORKFLOWS[name].partition(":")
    make = getattr(import_module(module), attribute)
    return WorkflowKind(make, make.__init__.__annotations__["params"])


def make_workflow(name: str, params: Mapping[str, Any], pack: AgentPack) -> Workflow:
    """A workflow with its params. Raises ConfigError for an unknown one, a bad param, or a pack that it cannot answer from."""
    kind = workflow_kind(name)
    try:
        checked = kind.params.model_validate(params)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (name, *first["loc"]))
        raise ConfigError(
            f"{where}: {first['msg']} (given: {first['input']!r})",
            hint=f"params of {name}: {', '.join(kind.params.model_fields)}",
        ) from None
    if (reason := checked.unfit(pack)) is not None:
        raise ConfigError(
            f"{name}: {reason}",
            hint="choose another workflow for this task: each task's page in docs/tasks names those that suit it",
        )
    knobs = checked.model_dump()
    if any(name.endswith("demonstrations") and knobs[name] == "nearest" for name in knobs):
        _ = pack.ranking  # here, so that no question's latency holds the time that it takes to make
    workflow: Workflow = kind.make(checked)
    return workflow
