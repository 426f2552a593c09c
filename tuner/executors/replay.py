"""Evaluation out of a recorded table: every run at once, as it was measured once, and marked as such.

Apart from `local`, which it stands in for: no server, no meter, no clock. What a study decides on it, it decides on
figures of real runs, in the order and at the prices at which it would have had them.
"""

import asyncio
import heapq
from collections.abc import Collection
from collections.abc import Coroutine
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from typing import Self

from tuner.derive import with_budget
from tuner.errors import TrialError
from tuner.errors import UserError
from tuner.evaluate import NO_PAST
from tuner.evaluate import Enough
from tuner.evaluate import Past
from tuner.evaluate import Record
from tuner.evaluate import never_enough
from tuner.load import Load
from tuner.load import arrivals_s
from tuner.measure.window import total
from tuner.objectives import OBJECTIVES
from tuner.records import ExampleRun
from tuner.records import PassRecord
from tuner.records import Reading
from tuner.records import Reused
from tuner.serving import PATIENCE
from tuner.serving import Addressed
from tuner.serving import Served
from tuner.spec import LoadedStudy
from tuner.table import REPLAYED
from tuner.table import Cost
from tuner.table import Ran
from tuner.table import Table
from tuner.tasks import SPLITS
from tuner.tasks import Example
from tuner.tasks import Task
from workflows.config import AgentConfig
from workflows.table import workflow_kind

NAMED = 3
"""How many configs a refusal names."""

_NOTHING = Reading(None, "none", "nothing", "no question was asked")


class ReplayExecutor:
    """Hands out the runs of a table. Raises UserError for a study whose configs and questions it does not tell of."""

    def __init__(self, table: Table, *, study: LoadedStudy, task: Task) -> None:
        _require_same(table, study)
        _require_covered(table, study, task)
        self._table = table
        self._study = study
        self._load = study.spec.load
        self._spent_s = 0.0
        self._is_stopping = False

    def under(self, load: Load) -> Self:
        """This executor; raises UserError for another load than the recorded one."""
        _require_equal("load", load.model_dump(mode="json"), self._table.header.load)
        return self

    async def open(self, first: Collection[str] = ()) -> None:
        """Nothing has to be started."""

    async def close(self) -> None:
        """Nothing is connected."""

    capacity = 1

    def has_room(self, under_way: int) -> bool:
        """For one: what is replayed takes no time, so nothing is gained by more."""
        return not under_way and not self._is_stopping

    def change(self) -> Coroutine[Any, Any, object]:
        """For ever: there is room as soon as nothing is under way."""
        return asyncio.Event().wait()

    def stop(self) -> None:
        """Begin nothing more."""
        self._is_stopping = True

    def is_busy(self) -> bool:
        """Never: what is replayed is there at once."""
        return False

    def busy_s(self) -> float:
        """What is replayed takes the time that it took."""
        return self._spent_s

    def is_ready(self, config: AgentConfig) -> bool:
        """Always: nothing has to be started."""
        return True

    async def run(
        self,
        config: AgentConfig,
        examples: Sequence[Example],
        record: Record,
        *,
        window: int,
        repeat: int = 0,
        past: Past = NO_PAST,
        enough: Enough = never_enough,
    ) -> tuple[PassRecord, ...]:
        """Record what the table has of these questions, as if they had been asked now. Raises TrialError for what it lacks."""
        known = {run.example_id: run for run in self._table.runs(config) if run.repeat == repeat}
        arrivals_at = arrivals_s(self._load.rate, len(examples)) if self._load.rate else None
        free_at = [0.0] * (self._load.concurrency or 1)
        given: list[ExampleRun] = []
        for number, example in enumerate(examples):
            if enough():
                break
            if example.id not in known:
                raise TrialError(
                    f"the table has no answer {repeat} to question {example.id} by this config"
                )
            run = _continued(known[example.id], past.get(example.id))
            spent_s = run.latency_s - run.reused.latency_s
            began_s = arrivals_at[number] if arrivals_at else heapq.heappop(free_at)
            heapq.heappush(free_at, began_s + spent_s)
            given.append(replace(run, window=window, started_s=began_s - run.reused.latency_s))
            self._spent_s += spent_s
            record(given[-1])
        energy = total([run.energy for run in given]) if given else _NOTHING
        load = {"declared": self._load.model_dump(exclude_none=True), "questions": len(given)}
        return (PassRecord(window, energy, None, servers={}, isolation={}, load=load),)

    async def derive(
        self,
        config: AgentConfig,
        runs: Sequence[ExampleRun],
        extras: Sequence[ExampleRun],
        budget: int,
    ) -> tuple[ExampleRun | None, ...]:
        """What the table has of these questions at a smaller budget, at no cost; None where it does not tell."""
        recorded = self._table.runs(with_budget(config, budget))
        found = {(run.example_id, run.repeat): run for run in recorded}

        def made(run: ExampleRun) -> ExampleRun | None:
            known = found.get((run.example_id, run.repeat))
            if known is None:
                return None
            return replace(known, window=run.window, started_s=run.started_s).taken_over()

        return tuple(map(made, runs))

    def begun(
        self,
        config: AgentConfig,
        earlier: AgentConfig,
        runs: Sequence[ExampleRun],
        extras: Sequence[ExampleRun],
    ) -> dict[str, ExampleRun]:
        """How far earlier runs had come with this config's answers: what the larger budget's had taken by the smaller one's round."""
        params = workflow_kind(config.workflow).params
        knob = params.anytime
        if knob is None or not params.resumable:
            return {}
        small, large = sorted((config, earlier), key=lambda each: int(each.params[knob]))
        taken = self._table.after(large, int(small.params[knob]))
        found = {}
        for run in runs:
            cost = taken.get((run.example_id, run.repeat))
            if cost is None or run.error or run.oracle:
                continue
            if cost.energy_j is not None or run.energy_j is None:
                found[run.example_id] = _cut(run, cost)
        return found

    def fingerprint(self) -> dict[str, str]:
        """What stands in a study's fingerprint for the servers that it does not have: a table is not mixed with anything else."""
        return {f"server of {name}": self._table.fingerprint for name in self._study.variants}

    def provenance(self) -> dict[str, Any]:
        """Where the figures come from, for the study's records: what the table says of itself, marked; plain JSON."""
        header = self._table.header
        return {
            **header.provenance.model_dump(mode="json", exclude={"models"}),
            "models": {
                name: self._model(name, ran)
                for name, ran in header.provenance.models.items()
                if name in self._study.variants
            },
            "replayed": {
                "study": header.study,
                "recorded_on": header.recorded_on,
                "table": self._table.fingerprint,
            },
        }

    def _model(self, name: str, ran: Ran) -> dict[str, Any]:
        """How a model was served, its joules marked.

        What would be called or started from an export is the study's own and not a stranger's.
        """
        spec, told = self._study.variants[name], ran.model_dump(mode="json")
        if isinstance(spec, Addressed):
            settings, serve = spec.settings(), None
        else:
            settings = ran.settings.model_copy(update={"api_base": None, "api_key_env": None})
            serve = {
                **(ran.serve or {}),
                **spec.record({}, (ran.serve or {}).get("engine_version")),
            }
        energy = {**told["energy"], "source": REPLAYED + ran.energy.source}
        return {
            **told,
            "settings": settings.model_dump(mode="json"),
            "serve": serve,
            "server": {"table": self._table.fingerprint},
            "energy": energy,
        }


def _cut(run: ExampleRun, cost: Cost) -> ExampleRun:
    """The run as far as it had come by then; what it said is not known anyway."""
    return replace(
        run,
        latency_s=cost.latency_s,
        energy=replace(run.energy, gross_j=cost.energy_j),
        tokens_in=cost.tokens_in,
        tokens_out=cost.tokens_out,
        cost_usd=cost.cost_usd,
    )


def _continued(run: ExampleRun, past: ExampleRun | None) -> ExampleRun:
    """The run with what an earlier one had done of it marked as paid for, as far as that goes: both were measured apart."""
    if past is None:
        return run
    done, own = past.taken_over().reused, run.taken_over().reused
    return replace(
        run,
        reused=Reused(
            latency_s=min(done.latency_s, own.latency_s),
            energy_j=min(done.energy_j, own.energy_j),
            tokens=min(done.tokens, own.tokens),
            cost_usd=min(done.cost_usd, own.cost_usd),
        ),
    )


def declared(model: Served | Addressed) -> dict[str, Any]:
    """What a study's file says a model is, as plain JSON, less where it is, how it is watched and how patiently it is asked."""
    return model.model_dump(mode="json", exclude={*PATIENCE, "api_base", "meter", "endpoints"})


def _require_same(table: Table, study: LoadedStudy) -> None:
    """Raise UserError for a model, load or cache that is not the recorded one."""
    header = table.header
    for name, model in study.spec.models.items():
        if name not in header.models:
            raise UserError(
                f"{study.path}: models: {name} is not in the table",
                hint=f"name what was recorded: {', '.join(header.models)}",
            )
        _require_equal(f"{study.path}: models.{name}", declared(model), header.models[name])
    load = study.spec.load.model_dump(mode="json")
    _require_equal(f"{study.path}: load", load, header.load)
    if study.spec.cache != header.cache:
        _refuse(f"{study.path}: cache", study.spec.cache, header.cache)


def _require_equal(place: str, given: Mapping[str, Any], recorded: Mapping[str, Any]) -> None:
    for key in {**recorded, **given}:
        if given.get(key) != recorded.get(key):
            _refuse(f"{place}.{key}", given.get(key), recorded.get(key))


def _refuse(place: str, given: Any, recorded: Any) -> None:
    raise UserError(
        f"{place}: is {given!r} here, and was {recorded!r} when the table was recorded",
        hint="a table tells of what was recorded and of nothing else: write the same into the study",
    )


def _require_covered(table: Table, study: LoadedStudy, task: Task) -> None:
    """Raise UserError for configs of the space, questions of the task or figures that the table lacks."""
    listed = study.space.configs(study.models)
    if listed is None:
        raise UserError(
            f"{study.path}: search_space: has a continuum of configs, of which no table has all",
            hint="give every knob a list of values, or a step",
        )
    asked = {
        (example.id, repeat)
        for split in SPLITS
        for example in task.examples(split)
        for repeat in range(study.spec.repeats)
    }
    needed = {field: name for name in study.measured() for field in OBJECTIVES[name].fields}
    short: list[str] = []
    for config in listed:
        answers = [run for run in table.runs(config) if (run.example_id, run.repeat) in asked]
        if len(answers) < len(asked):
            short.append(study.label(config))
            if len(short) == NAMED:
                break
        for field, objective in needed.items():
            if any(getattr(run, field) is None for run in answers):
                raise UserError(
                    f"{study.path}: objectives: {objective}: the table has no {field} of {study.label(config)}",
                    hint="leave the objective out, or record a table with it",
                )
    if short:
        raise UserError(
            f"{study.path}: executor: the table lacks answers to the study's {len(asked)} questions, or all of them, "
            f"by configs of its search space: {'; '.join(short)}{'; …' if len(short) == NAMED else ''}",
            hint="narrow the search space to what was recorded, or record all of it: "
            "tuner record STUDY --whole-space --out FILE",
        )
