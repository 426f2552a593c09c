"""Bring your own: any async function from question and session to answer is a workflow, by the name `module:function`.

What it asks of models is measured, whether through the session or straight through litellm.
"""

import inspect
from collections.abc import Awaitable
from collections.abc import Callable
from functools import cache
from functools import partial
from importlib import import_module
from operator import attrgetter
from types import SimpleNamespace
from typing import Any
from typing import get_args
from typing import get_type_hints

from workflows import capture
from workflows.agent_pack import AnswerForm
from workflows.base import Params
from workflows.errors import ConfigError
from workflows.session import Session
from workflows.table import WorkflowKind

Function = Callable[..., Awaitable[str]]
"""`(question, session)` or `(question, session, params)` to the answer."""

_HOW = "write: async def answer(question: str, session: Session) -> str"


class Custom:
    """Answers by a function of the user's."""

    def __init__(self, name: str, function: Function, takes_params: bool, params: Params) -> None:
        self.params = params
        self._name = name
        self._function = function
        self._rest = (params,) if takes_params else ()
        capture.install()  # here, so that no question's latency holds the seconds that it may take

    async def run(self, question: str, session: Session) -> str:
        """The function's answer. Raises what the function raised; ConfigError where it gave something else."""
        with capture.listening(session.trace):
            answer = await self._function(question, session, *self._rest)
        if not isinstance(answer, str):
            raise ConfigError(
                f"workflow {self._name}: gave {answer!r} for an answer",
                hint='give a text, "" where there is no answer',
            )
        return answer


@cache
def kind(name: str) -> WorkflowKind:
    """The workflow that a `module:function` makes; its params model is the annotation of its third argument.

    The module is found as Python finds it. Raises ConfigError for what is not there, cannot be
    imported, or is no such function.
    """
    function = _find(name)
    if not _is_async(function):
        raise ConfigError(f"workflow {name}: is not an async function", hint=_HOW)
    parameters = list(inspect.signature(function).parameters.values())
    by_position = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    beside = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if len(by_position) not in (2, 3) or beside:
        raise ConfigError(
            f"workflow {name}: takes {inspect.signature(function)}, "
            "and must take (question, session) or (question, session, params)",
            hint=_HOW,
        )
    takes_params = len(by_position) == 3
    params = _params(name, function, by_position[2]) if takes_params else Params
    if params.forms is Params.forms:  # the user's model says nothing of it
        params = type(params.__name__, (params,), {"forms": get_args(AnswerForm)})
    return WorkflowKind(partial(Custom, name, function, takes_params), params)


def _find(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in f"{module_name}.{attribute}".split(".")):
        raise ConfigError(
            f"workflow {name}: is not of the form module:function",
            hint="as in my_agents:answer, for async def answer(question, session) in my_agents.py",
        )
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"workflow {name}: there is no module {error.name}, installed or in the current folder",
                hint="start in the module's folder, or install it",
            ) from None
        raise ConfigError(
            f"workflow {name}: {module_name} cannot be imported: {error}",
            hint=f"pip install what has {error.name}",
        ) from error
    except (ImportError, SyntaxError) as error:
        raise ConfigError(
            f"workflow {name}: {module_name} cannot be imported: {error}",
            hint=f'mend it until this works: python -c "import {module_name}"',
        ) from error
    try:
        return attrgetter(attribute)(module)
    except AttributeError:
        known = [
            other for other, value in vars(module).items() if inspect.iscoroutinefunction(value)
        ]
        raise ConfigError(
            f"workflow {name}: {module_name} has no {attribute}",
            hint=f"its async functions: {', '.join(known) or 'none'}",
        ) from None


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or (
        not inspect.isclass(function)
        and inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
    )


def _params(name: str, function: Any, parameter: inspect.Parameter) -> type[Params]:
    where = f"workflow {name}: {parameter.name}"
    how = "write: params: MyParams, and class MyParams(workflows.Params)"
    if parameter.annotation is parameter.empty:
        raise ConfigError(f"{where}: has no annotation that says which knobs there are", hint=how)
    # This one alone: others, as Session, may have been imported for type checkers only.
    annotated = SimpleNamespace(__annotations__={"params": parameter.annotation})
    try:
        model = get_type_hints(annotated, _globals(function))["params"]
    except NameError as error:
        raise ConfigError(f"{where}: {error}", hint="define or import it at the top") from None
    if not (inspect.isclass(model) and issubclass(model, Params)):
        raise ConfigError(f"{where}: {model!r} is no subclass of workflows.Params", hint=how)
    for knob, field in model.model_fields.items():
        if field.is_required():
            raise ConfigError(
                f"{where}: {model.__name__}.{knob}: has no default",
                hint="give it one: a search space may leave any knob out",
            )
    if model.anytime is not None and model.anytime not in model.model_fields:
        raise ConfigError(
            f"{where}: {model.__name__}.anytime: no knob is named {model.anytime!r}",
            hint=f"name one of its fields: {', '.join(model.model_fields)}",
        )
    return model


def _globals(function: Any) -> dict[str, Any]:
    inner = function.func if isinstance(function, partial) else function
    inner = inspect.unwrap(inner)
    if not inspect.isroutine(inner):
        inner = type(inner).__call__
    return getattr(inner, "__globals__", {})
