"""An exported agent put to work: its models' servers started or found, clients and meters opened, all closed again.

Apart from `workflows.load`, which is given servers that run, and from `executors.fleet`, which starts what a study
names: here it is a file that may come from a stranger.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import ExitStack
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tuner.errors import UserError
from tuner.executors.fleet import Running
from tuner.measure import Meter
from tuner.measure import MeterSpec
from tuner.measure import NoMeter
from tuner.measure import make_meter
from tuner.serving import ENGINES
from tuner.serving import Endpoint
from tuner.serving import start_exported
from tuner.serving.models import Say
from tuner.serving.program import Program
from tuner.serving.program import find_program
from workflows.agent import Agent
from workflows.agent import build_exported
from workflows.config import AgentFile
from workflows.config import ExportedModel
from workflows.config import load_agent_file
from workflows.llm import ChatClient
from workflows.llm import ScriptedLLM


@dataclass(frozen=True, slots=True)
class Deployed:
    """An agent that answers."""

    file: AgentFile
    agent: Agent
    running: Mapping[str, Running]
    """What serves each of its models, and measures it."""


@contextmanager
def deploy(
    path: Path, *, allow_custom: bool = False, say: Say = lambda _: None
) -> Iterator[Deployed]:
    """The agent of an exported file, with servers started as they were when it was measured, for as long as the block lasts.

    Connections are closed by `Deployed.agent.close()`, on the loop that made them. With `allow_custom`, the file may
    name code that is not the tuner's: a workflow, a server's program, arguments or environment. A meter that does
    not work here is none, and said so. Raises ConfigError and UserError for a file that cannot be used, and
    ServingError where a server does not come up.
    """
    file = load_agent_file(path)
    for name, model in file.models.items():
        if not allow_custom:
            _refuse_programs(path, name, model)
    with ExitStack() as stack:
        running = {}
        # Built once without its models: what is wrong with it must not show after minutes of starting servers.
        stand_ins = {name: ScriptedLLM(()) for name in file.models}
        build_exported(file, llms=stand_ins, path=path, allow_custom=allow_custom)
        for name, model in file.models.items():
            endpoint = stack.enter_context(start_exported(name, model, say=say))
            meter = _meter(path, file, name, endpoint, say)
            running[name] = Running(endpoint, meter, ChatClient(endpoint.settings))
        llms = {name: each.client for name, each in running.items()}
        agent = build_exported(file, llms=llms, path=path, allow_custom=allow_custom)
        yield Deployed(file, agent, running)


def _refuse_programs(path: Path, name: str, model: ExportedModel) -> None:
    """Refuse a server whose program, arguments or environment are of the file's own choosing."""
    serve = model.serve or {}
    engine = ENGINES.get(serve.get("engine", ""))
    if engine is None or not issubclass(engine, Program):
        return
    program, *rest = engine.model_fields["command"].default
    given = serve.get("command", [program, *rest])
    is_usual = given in ([program, *rest], [find_program(program), *rest])
    for key, value in (
        ("command", None if is_usual else given),
        ("arguments", serve.get("arguments")),
        ("environment", serve.get("environment")),
    ):
        if value:
            raise UserError(
                f"{path}: models.{name}.serve.{key}: has a program started as the file says: {value!r}",
                hint="if you trust the file: --allow-custom",
            )


def _meter(path: Path, file: AgentFile, name: str, endpoint: Endpoint, say: Say) -> Meter:
    """What measured the model's energy, where that works here."""
    told: Any = file.provenance
    for key in ("energy", name, "meter"):
        told = told.get(key) if isinstance(told, Mapping) else None
    try:
        spec = None if told is None else MeterSpec.model_validate(told)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"{path}: provenance.energy.{name}.meter: {first['msg']} (given: {told!r})",
            hint="export it again from its study, or mend what was edited: the README has a table of meters",
        ) from None
    if spec is None:
        return NoMeter()
    if endpoint.pid is None and "cpu_estimate" in told:
        say(f"model {name}: its energy cannot be estimated: its server is not started here")
        return NoMeter()
    try:
        return make_meter(spec, pid=endpoint.pid, base=path.parent)
    except UserError as error:
        say(f"model {name}: its energy cannot be measured here: {error}")
        return NoMeter()
