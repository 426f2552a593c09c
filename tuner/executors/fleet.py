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
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from typing import Literal
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

NOWHERE_ELSE: Mapping[str, int] = {}
"""Every model at its first address."""


@dataclass(frozen=True, slots=True)
class Running:
    """A model that can be called, with what measures its server and what calls it."""

    endpoint: Endpoint
    meter: Meter
    client: ChatClient


@dataclass(frozen=True, slots=True)
class Started:
    """What is kept of a server with the study: plain data, as it may have come up on another machine."""

    model: str
    """As configs have it."""
    place: int
    """Which of the model's addresses."""
    fingerprint: Mapping[str, Any]
    provenance: Mapping[str, Any]
    devices: tuple[str, ...]
    """UUIDs of the GPUs that its meter counts."""
    start_s: float
    """How long it took until the server answered."""


OnStarted = Callable[[Started], None]
"""Hears of each server that has come up, before it answers its first question."""


class Fleet:
    """What a study's models are served by. A server is stopped only when another variant of its model is needed."""

    def __init__(
        self,
        study: LoadedStudy,
        *,
        report: Report = lambda event: None,
        started: OnStarted = lambda started: None,
    ) -> None:
        self._study = study
        self._variants = study.variants
        self._base = study.path.parent
        self._report = report
        self._started = started
        self._running: dict[tuple[str, int], Running] = {}
        self._failed: dict[str, str] = {}
        self._came_up: set[str] = set()
        for name, spec in study.spec.models.items():
            _require_meter(study, name, spec)  # before minutes are spent on its server

    @property
    def running(self) -> Mapping[str, Running]:
        """What can be called now, by the names that configs have for it: of a model at several addresses one."""
        found: dict[str, Running] = {}
        for (name, _), running in sorted(self._running.items(), key=lambda item: item[0][1]):
            found.setdefault(name, running)
        return {name: found[name] for name in self._variants if name in found}

    async def open(self, first: Collection[str] = ()) -> None:
        """Start or find every model: one with serving knobs as the variant among `first`, or else as the file's first values say.

        Of a model at several addresses, one that answers will do. Raises UserError when a server does not come up, a
        meter does not work, or an objective has nothing to be measured with.
        """
        for model in self._study.models:
            variants = [name for name in self._variants if model_name(name) == model]
            name = next((name for name in variants if name in first), variants[0])
            await self._open(name)
            running = self.running[name]
            if self._study.spec.cache == "isolated":
                _report_isolation(model, running.endpoint, self._report)

    async def bring_up(
        self, names: Sequence[str], places: Mapping[str, int] = NOWHERE_ELSE
    ) -> dict[str, Running]:
        """What serves these variants, each at its place, stopped and started as need be; a server of ours that died is started again.

        Raises VariantError for one whose server does not come up, which is not tried again, and ServingError where
        nothing answers at an address.
        """
        found = {}
        for name in names:
            place = places.get(name, 0)
            if name in self._failed:
                raise VariantError(self._failed[name])
            if (name, place) in self._running and await self._has_died(name, place):
                await self._end(name, place)
            if (name, place) not in self._running:
                await self._switch(name, place)
            found[name] = self._running[name, place]
        return found

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

    async def _open(self, name: str) -> None:
        failures: list[ServingError] = []
        for place in range(self._places(name)):
            try:
                await self._enlist(name, place)
            except ServingError as error:
                if self._places(name) == 1:
                    raise
                failures.append(error)
                self._say(str(error))
        if len(failures) == self._places(name):
            raise failures[0]

    def _spec(self, name: str, place: int) -> Served | Addressed:
        spec = self._variants[name]
        return spec.places()[place] if isinstance(spec, Addressed) else spec

    def _places(self, name: str) -> int:
        spec = self._variants[name]
        return len(spec.places()) if isinstance(spec, Addressed) else 1

    async def _has_died(self, name: str, place: int) -> bool:
        """Whether a server of ours has ended; one of somebody else's comes and goes without us."""
        endpoint = self._running[name, place].endpoint
        if endpoint.pid is None:
            return False
        try:
            await asyncio.to_thread(endpoint.check)
        except ServingError as error:
            self._say(f"{error}; it is started again")
            return True
        return False

    async def _end(self, name: str, place: int) -> None:
        running = self._running.pop((name, place))
        try:
            await running.client.close()
        finally:
            running.endpoint.close()

    async def _switch(self, name: str, place: int) -> None:
        """Stop the variant in whose place this one comes, and start this one."""
        others = [other for other, _ in self._running if model_name(other) == model_name(name)]
        for other in others:
            if other != name:
                self._say(f"stopping {other}")
                await self._end(other, 0)
        try:
            await self._enlist(name, place)
        except ServingError as error:
            if isinstance(self._variants[name], Addressed) or name in self._came_up:
                raise
            self._failed[name] = f"the server of {name} does not start, as an earlier trial found"
            raise VariantError(f"the server of {name} does not start: {error}") from None

    async def _enlist(self, name: str, place: int) -> None:
        """Start or find a server, and make sure that it answers and is measured."""
        spec, began_s = self._spec(name, place), time.monotonic()
        endpoint = launch(name, spec, base=self._base, say=self._say)
        try:
            # In a thread: Ctrl-C is heard meanwhile, and then ends the server, which ends the thread.
            await asyncio.to_thread(endpoint.wait)
            start_s = time.monotonic() - began_s
            running = Running(
                endpoint, _meter(spec, endpoint, self._base), ChatClient(endpoint.settings)
            )
            _require_prices(self._study, endpoint)
            _require_gpus(self._study, name, running.meter)
            self._started(self._told(name, place, running, start_s))
            _require_token_counts(self._study, name, await greet(name, running))
        except BaseException:
            endpoint.close()
            raise
        self._running[name, place] = running
        self._came_up.add(name)

    def _told(self, name: str, place: int, running: Running, start_s: float) -> Started:
        fingerprint = dict(running.endpoint.fingerprint())
        spec = self._variants[name]
        if isinstance(spec, Addressed) and spec.endpoints:
            fingerprint["api_base"] = None  # servers that answer alike are one model
        provenance = _provenance_of(running, self._study.spec.cache)
        return Started(name, place, fingerprint, provenance, running.meter.devices, start_s)


async def greet(name: str, running: Running) -> Span:
    """One short call to a model, so that no question pays for first connections. Raises ServingError."""
    trace = Trace()
    try:
        await running.client.complete(Request(prompt="Hello", max_tokens=1), trace)
    except ModelError as error:
        hint = error.hint or "is the server healthy, and is this what it calls the model?"
        raise ServingError(f"model {name}: {error}", hint=hint) from None
    return trace.spans[-1]


def _provenance_of(running: Running, cache: Literal["isolated", "shared"]) -> dict[str, Any]:
    endpoint, meter = running.endpoint, running.meter
    return {
        "settings": endpoint.settings.model_dump(mode="json"),
        "serve": endpoint.serve,
        "server": endpoint.fingerprint(),
        "engine": endpoint.engine,
        "cache": "shared" if cache == "shared" else endpoint.isolate("provenance").label,
        "energy": {
            "source": meter.source,
            "scope": meter.scope,
            "tick_s": meter.tick_s,
            "gpus": len(meter.devices) or None,
        },
    }


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
    # Of several addresses each has a meter, or none has.
    first = spec.places()[0] if isinstance(spec, Addressed) else spec
    chosen = None if first.meter is None else first.meter.root
    if chosen not in (None, "none") or (chosen is None and _is_guessed(first)):
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
