"""An agent that answers questions: a workflow with its params, a model and a pack; built from a config or loaded from a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from workflows.agent_pack import AgentPack
from workflows.base import Outcome
from workflows.base import Params
from workflows.base import Workflow
from workflows.config import AgentConfig
from workflows.config import load_agent_file
from workflows.errors import ConfigError
from workflows.llm import LLM
from workflows.llm import ChatClient
from workflows.session import Session
from workflows.tools import load_toolkits

WORKFLOWS: Mapping[str, str] = {
    "direct": "workflows.direct:Direct",
    "cot": "workflows.cot:Cot",
    "self_consistency": "workflows.self_consistency:SelfConsistency",
    "react": "workflows.react:React",
}


@dataclass(frozen=True, slots=True)
class WorkflowKind:
    """A workflow as the table names it: its class, and the model of its params."""

    make: Any
    params: type[Params]


def workflow_kind(name: str) -> WorkflowKind:
    """The workflow of that name. Raises ConfigError that lists the known ones."""
    if name not in WORKFLOWS:
        raise ConfigError(f"unknown workflow {name!r}; known: {', '.join(WORKFLOWS)}")
    module, _, attribute = WORKFLOWS[name].partition(":")
    make = getattr(import_module(module), attribute)
    return WorkflowKind(make, make.__init__.__annotations__["params"])


class Agent:
    """Answers questions under one config."""

    def __init__(self, workflow: Workflow, *, llm: LLM, pack: AgentPack) -> None:
        self._workflow = workflow
        self._llm = llm
        self._pack = pack
        self._toolkits = load_toolkits(pack)

    async def run(self, question: str, *, seed: int = 0) -> Outcome:
        """Answer one question. Raises what the model or a tool raised."""
        session = self.open_session(seed=seed)
        return await self.run_session(question, session)

    def open_session(self, *, seed: int = 0) -> Session:
        """A session for one question, for callers that want its trace even when the run fails."""
        tools = {tool.name: tool for toolkit in self._toolkits for tool in toolkit()}
        return Session(llm=self._llm, pack=self._pack, tools=tools, seed=seed)

    async def run_session(self, question: str, session: Session) -> Outcome:
        """Answer one question within a session of this agent's."""
        return session.outcome(await self._workflow.run(question, session))


def build(config: AgentConfig, *, llm: LLM, pack: AgentPack) -> Agent:
    """The agent that a config describes. Raises ConfigError for an unknown workflow or a bad param."""
    kind = workflow_kind(config.workflow)
    try:
        params = kind.params.model_validate(config.params)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (config.workflow, *first["loc"]))
        raise ConfigError(
            f"{where}: {first['msg']} (given: {first['input']!r})",
            hint=f"params of {config.workflow}: {', '.join(kind.params.model_fields)}",
        ) from None
    if params.few_shot and params.demonstrations == "nearest":
        _ = pack.ranking  # here, so that no question's latency holds the time that it takes to make
    return Agent(kind.make(params), llm=llm, pack=pack)


def load(path: str | Path, *, api_base: str | None = None) -> Agent:
    """The agent in an exported file, on the model that it names.

    `api_base` replaces the file's address of the model's server. Raises ConfigError when the file
    cannot be used, or names no address for a server that the tuner had started itself.
    """
    path = Path(path)
    file = load_agent_file(path)
    settings = file.model
    if api_base is not None:
        settings = settings.model_copy(update={"api_base": api_base})
    elif file.serve is not None:
        raise ConfigError(
            f"{path}: model: was measured on a server that the tuner started and stopped again",
            hint="give the address of one that runs: load(path, api_base=…), or use: tuner ask",
        )
    try:
        return build(file.config, llm=ChatClient(settings), pack=file.pack)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", hint=error.hint) from None
