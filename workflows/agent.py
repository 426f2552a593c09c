"""An agent that answers questions: a workflow with its params, models and a pack; built from a config or loaded from a file."""

from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path

from workflows.agent_pack import AgentPack
from workflows.base import Outcome
from workflows.base import Workflow
from workflows.config import AgentConfig
from workflows.config import AgentFile
from workflows.config import Knob
from workflows.config import load_agent_file
from workflows.errors import ConfigError
from workflows.llm import LLM
from workflows.llm import ChatClient
from workflows.resume import OnReadAgain
from workflows.resume import PastRun
from workflows.session import OnProgress
from workflows.session import Oracle
from workflows.session import Session
from workflows.table import make_workflow
from workflows.table import workflow_kind
from workflows.telemetry import telling
from workflows.tools import Delayed
from workflows.tools import Kit
from workflows.tools import Toolbox
from workflows.tools import Toolkit
from workflows.tools import load_toolkits


class Agent:
    """Answers questions under one config."""

    def __init__(
        self,
        workflow: Workflow,
        *,
        llms: Mapping[str, LLM],
        actor: str,
        pack: AgentPack,
        tool_delay_s: float = 0.0,
        config: AgentConfig | None = None,
    ) -> None:
        self._workflow = workflow
        self._config = config
        self._llms = llms
        self._actor = actor
        self._pack = pack
        self._toolkits = load_toolkits(pack)
        self._tool_delay_s = tool_delay_s

    async def run(
        self, question: str, *, seed: int = 0, on_progress: OnProgress | None = None
    ) -> Outcome:
        """Answer one question. Raises what the model or a tool raised.

        `on_progress` hears of each call (a Span) and each round (a Checkpoint) as it ends. The run is told to
        OpenTelemetry where that is configured (`workflows.telemetry`).
        """
        session = self.open_session(seed=seed, on_progress=on_progress)
        config = self._config
        with telling(
            session.trace,
            name=type(self._workflow).__name__ if config is None else config.workflow,
            version=None if config is None else config.hash(),
            model=self._actor,
            settings={
                llm.settings.model: llm.settings
                for llm in self._llms.values()
                if isinstance(llm, ChatClient)
            },
        ) as told:
            told.asked(question)
            outcome = await self.run_session(question, session)
            told.answered(outcome.answer)
        return outcome

    async def close(self) -> None:
        """Close the connections to the models' servers; on the event loop that the runs were on."""
        for llm in self._llms.values():
            if isinstance(llm, ChatClient):
                await llm.close()

    def open_session(
        self,
        *,
        seed: int = 0,
        oracle: Oracle | None = None,
        past: PastRun | None = None,
        on_read_again: OnReadAgain | None = None,
        on_progress: OnProgress | None = None,
    ) -> Session:
        """A session for one question, for callers that want its trace even when the run fails.

        With a past, of the same question and seed and under params that differ in the budget alone, the run goes on
        from there, where the params say that it can; `on_read_again` hears of what servers read again before that.
        """
        return Session(
            llms=self._llms,
            actor=self._actor,
            pack=self._pack,
            tools=Toolbox([self._opened(toolkit) for toolkit in self._toolkits]),
            seed=seed,
            oracle=oracle,
            past=past,
            on_read_again=on_read_again,
            on_progress=on_progress,
        )

    def _opened(self, toolkit: Toolkit) -> Kit:
        kit = toolkit()
        return Delayed(kit, self._tool_delay_s) if self._tool_delay_s else kit

    async def run_session(self, question: str, session: Session) -> Outcome:
        """Answer one question within a session of this agent's."""
        return session.outcome(await self._workflow.run(question, session))


def build(
    config: AgentConfig,
    *,
    llms: Mapping[str, LLM],
    pack: AgentPack,
    tool_delay_s: float = 0.0,
) -> Agent:
    """The agent that a config describes, on models by the names that the config has for them.

    Every tool call takes `tool_delay_s` longer: for measuring tools that answer at once as if they were
    behind a network. Raises ConfigError for an unknown workflow, a bad param, a pack that the workflow cannot answer
    from, or a model that is not there.
    """
    workflow = make_workflow(config.workflow, config.params, pack)
    for name in config.models():
        if name not in llms:
            raise ConfigError(
                f"model {name!r} is not there", hint=f"there are: {', '.join(llms) or 'none'}"
            )
    return Agent(
        workflow,
        llms=llms,
        actor=config.model,
        pack=pack,
        tool_delay_s=tool_delay_s,
        config=config,
    )


def build_exported(
    file: AgentFile, *, llms: Mapping[str, LLM], path: Path, allow_custom: bool = False
) -> Agent:
    """The agent in a file that was read from `path`, on these models.

    A workflow of one's own, `module:function`, is imported only with `allow_custom`: the file may be a stranger's,
    and an import runs what it names. Raises ConfigError, naming the file, as `build` does, and where that is not allowed.
    """
    try:
        own = own_code(file.config)
        if own and not allow_custom:
            raise ConfigError(
                f"runs code that is not tuner's: the workflow {', '.join(own)}",
                hint="if you trust the file and that code: --allow-custom, or workflows.load(path, allow_custom=True)",
            )
        return build(file.config, llms=llms, pack=file.pack)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", hint=error.hint) from None


def own_code(config: AgentConfig) -> tuple[str, ...]:
    """The workflows of a config that are no part of this package, `module:function` each; imports none of them."""
    return tuple(_own_code(config.workflow, config.params))


def _own_code(workflow: str, params: Mapping[str, Knob], within: str = "") -> Iterator[str]:
    """Every `module:function` that a workflow, or one within it, is."""
    if ":" in workflow:
        yield workflow
        return
    for knob in workflow_kind(workflow).params.nested:
        inner = params.get(f"{within}{knob}")
        if isinstance(inner, str):
            yield from _own_code(inner, params, f"{within}{knob}.")


def load(
    path: str | Path,
    *,
    api_base: str | Mapping[str, str] | None = None,
    allow_custom: bool = False,
) -> Agent:
    """The agent in an exported file, on the models that it names.

    `api_base` replaces the file's address of the models' server; a mapping gives one for each model
    by name. `allow_custom` lets the file name a workflow that is no part of this package, which is then
    imported: only for files and code that you trust. Raises ConfigError when the file cannot be used, names
    such a workflow without that, or names no address for a server that the tuner had started itself.
    """
    path = Path(path)
    file = load_agent_file(path)
    llms = {}
    for name, model in file.models.items():
        address = api_base.get(name) if isinstance(api_base, Mapping) else api_base
        if address is None and model.serve is not None:
            raise ConfigError(
                f"{path}: models.{name}: was measured on a server that the tuner started and stopped again",
                hint="give the address of one that runs: load(path, api_base=…), or use: tuner ask",
            )
        changes = {} if address is None else {"api_base": address}
        llms[name] = ChatClient(model.settings.model_copy(update=changes))
    return build_exported(file, llms=llms, path=path, allow_custom=allow_custom)
