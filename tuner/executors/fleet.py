"""The servers of a study with their meters and clients: of a model with serving knobs one variant at a time.

Apart from the executor, which asks questions of whatever runs: here is what starts, what makes room for it, and what
cannot be started.
"""

import asyncio
import time
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tuner.errors import ServingError
from tuner.errors import UserError
from tuner.errors import VariantError
from tuner.events import Report
from tuner.events import Talk
from tuner.measure import Meter
from tuner.measure import make_meter
from tuner.objectives import OBJECTIVES
from tuner.serving import Addressed
from tuner.serving import Endpoint
from tuner.serving import Served
from tuner.serving import launch
from tuner.serving import model_name
from tuner.serving import start
from tuner.spec import LoadedStudy
from workflows.errors import ModelError
from workflows.llm import ChatClient
from workflows.llm import Request
from workflows.trace import Span
from workflows.trace import Trace

_LIMITS_NEED = {
    "gpu_hours": "gpus",
    "energy_wh": "meter",
    "cost_usd": "prices",
    "tokens": "tokens",
}
"""What must be there for a limit of the budget to be kept."""


@dataclass(frozen=True, slots=True)
class Running:
    """A model that can be called, with what measures its server and what calls it."""

    endpoint: Endpoint
    meter: Meter
    client: ChatClient


Started = Callable[[str, Running], None]
"""Hears of each variant that has come up, before it answers its first question."""


class Fleet:
    """What a study's models are served by. A server is stopped only when another variant of its model is needed."""

    def __init__(
        self,
        study: LoadedStudy,
        *,
        report: Report = lambda event: None,
        started: Started = lambda name, running: None,
    ) -> None:
        self._study = study
        self._variants = study.variants
        self._base = study.path.parent
        self._report = report
        self._started = started
        self._running: dict[str, Running] = {}
        self._failed: dict[str, str] = {}
        self.starts_s: list[float] = []
        """How long each start took, until its server answered."""

    @property
    def running(self) -> Mapping[str, Running]:
        """What can be called now, by the names that configs have for it."""
        return self._running

    def open(self, first: Collection[str] = ()) -> None:
        """Start every model: one with serving knobs as the variant among `first`, or else as the file's first values say.

        Raises UserError when a server does not come up, or a meter does not work.
        """
        for model in self._study.models:
            variants = [name for name in self._variants if model_name(name) == model]
            name = next((name for name in variants if name in first), variants[0])
            began_s = time.monotonic()
            endpoint = start(name, self._variants[name], base=self._base, say=self._say)
            self._enlist(name, endpoint, time.monotonic() - began_s)

    async def warm_up(self) -> None:
        """One short call to each model, so that no trial pays for first connections. Raises ServingError."""
        for name in self._running:
            await self._warm_up(name)

    async def bring_up(self, names: Sequence[str]) -> dict[str, Running]:
        """What serves these variants, stopped and started as need be.

        Raises VariantError for one whose server does not come up; it is not tried again.
        """
        for name in names:
            if name in self._failed:
                raise VariantError(self._failed[name])
            if name not in self._running:
                await self._switch(name)
        return {name: self._running[name] for name in names}

    async def disconnect(self) -> None:
        """Close the connections to the servers; on the loop that made them."""
        for running in self._running.values():
            await running.client.close()

    def close(self) -> None:
        """Stop every server that was started."""
        for running in self._running.values():
            running.endpoint.close()
        self._running = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _say(self, text: str) -> None:
        self._report(Talk(text))

    async def _switch(self, name: str) -> None:
        """Stop the variant in whose place this one comes, and start this one."""
        for other in [other for other in self._running if model_name(other) == model_name(name)]:
            self._say(f"stopping {other}")
            try:
                await self._running[other].client.close()
            finally:
                self._running.pop(other).endpoint.close()
        began_s = time.monotonic()
        try:
            endpoint = await self._begin(name)
        except ServingError as error:
            self._failed[name] = f"the server of {name} does not start, as an earlier trial found"
            raise VariantError(f"the server of {name} does not start: {error}") from None
        self._enlist(name, endpoint, time.monotonic() - began_s)
        await self._warm_up(name)

    async def _begin(self, name: str) -> Endpoint:
        endpoint = launch(name, self._variants[name], base=self._base, say=self._say)
        try:
            # In a thread: Ctrl-C is heard meanwhile, and then ends the server, which ends the thread.
            await asyncio.to_thread(endpoint.wait)
        except BaseException:
            endpoint.close()
            raise
        return endpoint

    def _enlist(self, name: str, endpoint: Endpoint, start_s: float) -> None:
        self.starts_s.append(start_s)
        try:
            meter = _meter(self._variants[name], endpoint, self._base)
            running = Running(endpoint, meter, ChatClient(endpoint.settings))
        except BaseException:
            endpoint.close()
            raise
        self._running[name] = running
        self._started(name, running)

    async def _warm_up(self, name: str) -> None:
        request, trace = Request(prompt="Hello", max_tokens=1), Trace()
        try:
            await self._running[name].client.complete(request, trace)
        except ModelError as error:
            hint = error.hint or "is the server healthy, and is this what it calls the model?"
            raise ServingError(f"model {name}: {error}", hint=hint) from None
        _require_token_counts(self._study, name, trace.spans[-1])


def open_fleet(
    study: LoadedStudy,
    stack: ExitStack,
    *,
    report: Report = lambda event: None,
    started: Started = lambda name, running: None,
    first: Collection[str] = (),
) -> Fleet:
    """Every model started, stopped with the stack; one that has serving knobs as the variant among `first`, if any.

    Raises UserError when a server does not come up, a meter does not work, or an objective has
    nothing to be measured with.
    """
    for name, spec in study.spec.models.items():
        _require_meter(study, name, spec)  # before minutes are spent on its server
    fleet = stack.enter_context(Fleet(study, report=report, started=started))
    fleet.open(first)
    for name, running in fleet.running.items():
        if study.spec.cache == "isolated":
            _report_isolation(model_name(name), running.endpoint, report)
        _require_prices(study, running.endpoint)
        _require_gpus(study, name, running.meter)
    return fleet


def _report_isolation(name: str, endpoint: Endpoint, report: Report) -> None:
    """Tell of a server whose prefix cache the trials' prompts must be kept out of by other means than emptying it."""
    isolation = endpoint.isolate("first")
    if isolation.salting == "prompt":
        report(
            Talk(
                f"model {name}: its prefix cache cannot be emptied between trials ({isolation.by}); "
                "so that they do not share it, prompts begin with a line of a few letters, other ones in each trial"
            )
        )


def _limits(study: LoadedStudy, *needs: str) -> list[str]:
    """The limits of the study's budget that cannot be kept without these, as its file has them."""
    return [
        f"budget: {name}"
        for name, needed in _LIMITS_NEED.items()
        if needed in needs and getattr(study.spec.budget, name) is not None
    ]


def _objectives(study: LoadedStudy, needs: str) -> list[str]:
    return [f"objectives: {name}" for name in study.measured() if OBJECTIVES[name].needs == needs]


def _require_meter(study: LoadedStudy, model: str, spec: Served | Addressed) -> None:
    chosen = None if spec.meter is None else spec.meter.root
    if chosen not in (None, "none") or (chosen is None and _is_guessed(spec)):
        return
    for place in (*_objectives(study, "meter"), *_limits(study, "meter", "gpus")):
        raise UserError(
            f"{study.path}: {place} needs a meter, and model {model!r} has none",
            hint="give the model a meter (nvml, dcgm, tensorrt_llm or rapl; cpu_estimate for a server on "
            "the CPU that the study starts), or leave it out",
        )


def _require_gpus(study: LoadedStudy, model: str, meter: Meter) -> None:
    for place in _limits(study, "gpus"):
        if not meter.devices:
            raise UserError(
                f"{study.path}: {place}: the meter of model {model!r} ({meter.source}) names no GPUs to count",
                hint="give the model a meter of its GPUs (nvml or dcgm), or limit the wall_clock",
            )


def _require_prices(study: LoadedStudy, endpoint: Endpoint) -> None:
    from workflows.llm import prices

    for place in (*_objectives(study, "prices"), *_limits(study, "prices")):
        if prices(endpoint.settings) is None:
            raise UserError(
                f"{study.path}: {place}: litellm has no price for model {endpoint.settings.model!r}",
                hint="leave it out, or use tokens_total (in the budget: tokens)",
            )


def _require_token_counts(study: LoadedStudy, model: str, call: Span) -> None:
    for place in _limits(study, "prices", "tokens"):
        if call.tokens_in is None or call.tokens_out is None:
            raise UserError(
                f"{study.path}: {place}: the server of model {model!r} reports no token counts",
                hint="leave it out, and limit the wall_clock",
            )


def _meter(spec: Served | Addressed, endpoint: Endpoint, base: Path) -> Meter:
    pid = endpoint.pid if _is_guessed(spec) or spec.meter is not None else None
    return make_meter(spec.meter, pid=pid, base=base)


def _is_guessed(spec: Served | Addressed) -> bool:
    """Whether a model without a meter has its energy estimated: what a GPU does shows in no CPU time."""
    return isinstance(spec, Served) and spec.on_cpu
