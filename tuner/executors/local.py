"""Evaluation in this process, against servers that it started or was given the address of."""

from collections.abc import Mapping
from collections.abc import Sequence
from copy import copy
from dataclasses import asdict
from typing import Literal
from typing import Self

from tuner.errors import ServingError
from tuner.evaluate import Record
from tuner.evaluate import evaluate
from tuner.load import Load
from tuner.measure import Meter
from tuner.measure.total import total
from tuner.measure.window import idle_power_w
from tuner.records import ExampleRun
from tuner.records import PassRecord
from tuner.serving import Endpoint
from tuner.tasks import Example
from tuner.tasks import Task
from workflows.agent import build
from workflows.config import AgentConfig
from workflows.errors import ModelError
from workflows.llm import ChatClient
from workflows.llm import Request
from workflows.trace import Trace


class LocalExecutor:
    """One evaluation at a time, so that a metered device serves one config only."""

    def __init__(
        self,
        *,
        endpoints: Mapping[str, Endpoint],
        meters: Mapping[str, Meter],
        task: Task,
        load: Load,
        cache: Literal["isolated", "shared"],
    ) -> None:
        self._endpoints = endpoints
        self._meters = meters
        self._task = task
        self._load = load
        self._cache = cache
        self._idle_w: dict[tuple[str, ...], float | None] = {}
        self._clients = {
            name: ChatClient(endpoint.settings) for name, endpoint in endpoints.items()
        }

    def under(self, load: Load) -> Self:
        """This executor, connections and all, under another load."""
        other = copy(self)
        other._load = load
        return other

    async def warm_up(self) -> None:
        """One short call to each model, so that no trial pays for first connections. Raises ServingError."""
        for name, client in self._clients.items():
            try:
                await client.complete(Request(prompt="Hello", max_tokens=1), Trace())
            except ModelError as error:
                raise ServingError(f"model {name}: {error}", hint=error.hint) from None

    async def close(self) -> None:
        """Close the connections to the servers."""
        for client in self._clients.values():
            await client.close()

    async def run(
        self, config: AgentConfig, examples: Sequence[Example], record: Record, *, window: int
    ) -> PassRecord:
        """Evaluate the config here; its servers' prompt caches are emptied first, unless they are shared."""
        endpoints = [self._endpoints[name] for name in config.models()]
        for endpoint in endpoints:
            endpoint.check()
            if self._cache == "isolated":
                endpoint.clear_cache()

        def record_if_served(run: ExampleRun) -> None:
            if run.error is not None:
                for endpoint in endpoints:
                    endpoint.check()  # a dead server is no failure of the config's
            record(run)

        meter = total([self._meters[name] for name in config.models()])
        idle_w = await self._idle_power_w(config.models(), meter)
        sitting = await evaluate(
            build(
                config,
                llms=self._clients,
                pack=self._task.pack,
                tool_delay_s=self._task.tool_delay_s,
            ),
            examples,
            task=self._task,
            meter=meter,
            load=self._load,
            record=record_if_served,
            window=window,
            idle_w=idle_w,
        )
        load = asdict(sitting.load)
        return PassRecord(window, sitting.energy, idle_w, servers={}, isolation={}, load=load)

    async def _idle_power_w(self, models: tuple[str, ...], meter: Meter) -> float | None:
        """What these models' devices draw with nothing to do; looked at once, before their first examples."""
        if models not in self._idle_w:
            self._idle_w[models] = await idle_power_w(meter)
        return self._idle_w[models]
