"""A study file with its search space as frozen, validated data; every mistake a file can hold surfaces here."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Annotated
from typing import Any
from typing import Literal

from pydantic import BaseModel
from pydantic import BeforeValidator
from pydantic import ConfigDict
from pydantic import Field
from pydantic import field_validator
from pydantic_core import PydanticCustomError

from tuner.condition import Condition
from tuner.errors import SpecError
from tuner.load import P95_NEEDS
from tuner.load import Load
from tuner.measure.nvml import NvmlSpec
from tuner.objectives import OBJECTIVES
from tuner.samplers import LARGEST_GRID
from tuner.samplers import SAMPLERS
from tuner.serving import PATIENCE
from tuner.serving import VARIANT_SIGN
from tuner.serving import Addressed
from tuner.serving import ModelSpec
from tuner.serving import Served
from tuner.serving import model_name
from tuner.serving import variant_name
from tuner.serving.program import Program
from tuner.source import Source
from tuner.space import Choices
from tuner.space import SearchSpace
from tuner.space import check_fit
from tuner.space import check_roles
from tuner.space import load_space
from tuner.table import load_recorded_task
from tuner.tasks import TASKS
from tuner.tasks import Task
from tuner.tasks import TaskOptions
from tuner.tasks import load_task
from tuner.tasks import task_options
from workflows.config import ACTOR
from workflows.config import AgentConfig
from workflows.config import Knob

if TYPE_CHECKING:
    from sqlalchemy import URL

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def _duration_s(content: Any) -> Any:
    """Seconds of `90s`, `10m`, `1.5h` or a plain number of seconds."""
    if not isinstance(content, str):
        return content
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh])\s*", content)
    if match is None:
        raise ValueError(f"{content!r} is no duration; write 90s, 10m or 1.5h")
    return float(match[1]) * SECONDS[match[2]]


Duration = Annotated[float, BeforeValidator(_duration_s), Field(gt=0)]


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Sampler(_Data):
    """What decides which config is tried next, and its seed."""

    name: str = "pooled"
    seed: int = Field(default=0, ge=0)

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in SAMPLERS:
            raise ValueError(f"unknown sampler {name!r}; known: {', '.join(SAMPLERS)}")
        return name


class Budget(_Data):
    """When a study ends: at the first of these. docs/budgets.md has what counts against each."""

    trials: int = Field(ge=1, description="configs evaluated; replays of known ones do not count")
    wall_clock: Duration | None = Field(
        default=None, description="time spent searching, over all runs: 90s, 10m, 1.5h"
    )
    gpu_hours: float | None = Field(
        default=None, gt=0, description="of all GPUs that are metered, while questions are asked"
    )
    energy_wh: float | None = Field(default=None, gt=0, description="gross energy, metered")
    cost_usd: float | None = Field(
        default=None, gt=0, description="what the models' prices come to"
    )
    tokens: int | None = Field(default=None, ge=1, description="of prompts and answers")
    plateau: int | None = Field(
        default=None,
        ge=1,
        description="trials during which the front gained less than is known of it",
    )


class Racing(_Data):
    """When a config that others beat is given no more questions; the pooled sampler, which spends by the question, needs none."""

    confidence: float = Field(
        default=0.95, gt=0.5, lt=1, description="that a config which is stopped is beaten indeed"
    )
    block: int = Field(default=6, ge=1, description="questions between two looks")


class Replay(_Data):
    """A recorded table that answers instead of servers: tuner record writes one."""

    replay: str = Field(min_length=1, description="the table's file")


class Ray(_Data):
    """A Ray cluster, and what of it a worker takes: one evaluation runs on a worker at a time."""

    address: str = Field(
        default="auto",
        min_length=1,
        description="auto: the cluster that this machine is in; local: one that is started here; or HOST:PORT",
    )
    num_cpus: float = Field(default=1.0, ge=0, description="CPUs of a worker")
    num_gpus: float | None = Field(
        default=None,
        ge=0,
        description="GPUs of a worker; left out: as many as the servers need that it starts",
    )
    resources: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="custom resources of a worker, as its machine was started with: {llm_slot: 1}",
    )
    workers: int | None = Field(
        default=None, ge=1, description="workers at most; left out: as many as have something to do"
    )


class OnRay(_Data):
    """Evaluations on the machines of a Ray cluster."""

    ray: Ray


def _pick_executor(content: Any) -> Any:
    # A union would answer a mistake in one kind with complaints about all.
    if isinstance(content, Replay | OnRay) or content == "local":
        return content
    if isinstance(content, Mapping):
        for key, kind in (("replay", Replay), ("ray", OnRay)):
            if key in content:
                return kind.model_validate(content)
    raise PydanticCustomError("executor", "Input should be local, {ray: …} or {replay: FILE}")


Executor = Annotated[Literal["local"] | OnRay | Replay, BeforeValidator(_pick_executor)]
"""Where evaluations run."""


class ProfileOptions(_Data):
    """What `tuner profile` measures beside the configs of the search space."""

    rates: dict[str, Literal["knee"] | tuple[Annotated[float, Field(gt=0)], ...]] = Field(
        default_factory=dict,
        description="workflow to questions a second at which its centre is asked, or `knee`, which finds the "
        "highest that is sustained: {react: [0.1, 0.2], cot: knee}",
    )


class StudySpec(_Data):
    """A study file. Paths and SQLite files in it are relative to it."""

    format_version: Literal[1]
    name: str = Field(min_length=1, max_length=200, pattern=r"^[\w.-]+$")
    task: dict[str, Any]
    search_space: str
    models: dict[str, ModelSpec] = Field(min_length=1)
    objectives: tuple[str, ...] = Field(min_length=2, max_length=5)
    constraints: dict[str, str] = Field(default_factory=dict)
    load: Load = Load()
    cache: Literal["isolated", "shared"] = Field(
        default="isolated", description="whether a trial may find prompts of the one before cached"
    )
    sampler: Sampler = Sampler()
    racing: Racing | Literal[False] = Field(
        default=Racing(), description="`false` gives every config every question"
    )
    repeats: int = Field(
        default=1,
        ge=1,
        description="answers to a question at most; those after the first go to configs of whose place on the "
        "front little is known",
    )
    warm_start: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="studies of the same storage, or study files, whose evaluations are reused",
    )
    executor: Executor = "local"
    budget: Budget
    max_failure_rate: float = Field(
        default=0.5, ge=0, lt=1, description="share of failed questions above which a trial fails"
    )
    profile: ProfileOptions = ProfileOptions()
    storage: str = "sqlite:///tuner.db"

    @field_validator("models")
    @classmethod
    def _leave_the_actor(cls, models: dict[str, ModelSpec]) -> dict[str, ModelSpec]:
        if ACTOR in models:
            raise ValueError(f"{ACTOR!r} stands for the config's own model; choose another name")
        for name in models:
            if VARIANT_SIGN in name:
                raise ValueError(
                    f"{name!r}: {VARIANT_SIGN} stands between a model's name and how it is served"
                )
        return models

    @field_validator("objectives")
    @classmethod
    def _are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in OBJECTIVES:
                raise ValueError(f"unknown objective {name!r}; known: {', '.join(OBJECTIVES)}")
        if len(set(names)) < len(names):
            raise ValueError(f"names an objective twice: {', '.join(names)}")
        return names

    @field_validator("constraints")
    @classmethod
    def _are_bounds(cls, constraints: dict[str, str]) -> dict[str, str]:
        for name, text in constraints.items():
            if name not in OBJECTIVES:
                raise ValueError(f"unknown objective {name!r}; known: {', '.join(OBJECTIVES)}")
            if not _is_bound(text):
                raise ValueError(f"{name}: {text!r} is no bound; write <= 20 or >= 0.5")
        return constraints


def _is_bound(text: str) -> bool:
    try:
        condition = Condition.parse(text)
    except ValueError:
        return False
    is_number = not isinstance(condition.value, str | bool) and math.isfinite(condition.value)
    return condition.sign in ("<=", ">=") and is_number


class LoadedStudy(BaseModel):
    """A study with everything its file points to: the space, the task's options, the folder it lies in."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    path: Path
    spec: StudySpec
    space: SearchSpace
    task_options: TaskOptions
    storage_url: str

    @property
    def space_path(self) -> Path:
        """Where the search space stands."""
        return self.path.parent / self.spec.search_space

    @property
    def models(self) -> Mapping[str, Mapping[str, Choices]]:
        """The models by name, in the order of the file, with the serving knobs that have several values."""
        return {
            name: {
                knob: Choices(choices=values)
                for knob, values in (model.choices() if isinstance(model, Served) else {}).items()
            }
            for name, model in self.spec.models.items()
        }

    @property
    def variants(self) -> Mapping[str, Served | Addressed]:
        """Every model that a config may name, as it is to be served: a model with serving knobs once for each of their combinations."""
        found: dict[str, Served | Addressed] = {}
        for name, model in self.spec.models.items():
            if isinstance(model, Addressed):
                found[name] = model
                continue
            for values, variant in model.variants().items():
                found[variant_name(name, dict(zip(model.choices(), values, strict=True)))] = variant
        return found

    def knobs(self, config: AgentConfig) -> dict[str, Knob]:
        """The knobs of a config that the study varies, by their names within its workflow and its model."""
        workflow, model = f"{config.workflow}.", f"{model_name(config.model)}."
        return {
            name.removeprefix(workflow).removeprefix(model): value
            for name, value in self.space.flat(config, self.models).items()
            if name != "workflow"
        }

    def label(self, config: AgentConfig, **more: Knob) -> str:
        """A config in one line: workflow, the knobs that the study varies, and `more`.

        One that is told when it is right is marked.
        """
        knobs = {**self.knobs(config), **more}
        mark = ["(oracle)"] if config.oracle else []
        return " ".join([config.workflow, *(f"{k}={_written(v)}" for k, v in knobs.items()), *mark])

    def measured(self) -> tuple[str, ...]:
        """Objectives to be measured: those optimised, then those only constrained."""
        extra = [name for name in self.spec.constraints if name not in self.spec.objectives]
        return (*self.spec.objectives, *extra)

    @property
    def table_path(self) -> Path | None:
        """The recorded table that the study is replayed from; None where servers answer."""
        where = self.spec.executor
        return self.path.parent / where.replay if isinstance(where, Replay) else None

    def load_task(self) -> Task:
        """The task with its questions, which are the table's where the study is replayed from one.

        Raises DataError, UserError for another task than the table's, and SpecError where a workflow of the space
        does not suit it.
        """
        name, base = self.spec.task["name"], self.path.parent
        if self.table_path is None:
            task = load_task(name, self.task_options, base=base)
        else:
            task = load_recorded_task(self.table_path, name, self.task_options, base=base)
        check_fit(self.space, self.space_path, task)
        return task

    def fingerprint(self, task: Task | None = None) -> dict[str, str]:
        """What must not change within one storage, part by part, so that a refusal can name the part.

        Without the task's questions, which may take long to load, the part `task` is left out.
        """
        spec = self.spec
        models = {name: _identity(model) for name, model in spec.models.items()}
        scoring = getattr(self.task_options, "score", None)
        return {
            "search space": self.space.fingerprint(),
            **({} if task is None else {"task": task.fingerprint()}),
            **({} if scoring is None else {"scoring": str(scoring)}),
            "models": fingerprint_of(models),
            "objectives": fingerprint_of([spec.objectives, sorted(spec.constraints.items())]),
            "load": fingerprint_of([spec.load.model_dump(exclude_defaults=True), spec.cache]),
        }


def _identity(model: Served | Addressed) -> dict[str, Any]:
    """What of a model must not change within a study: not how many servers it has, but how they are metered."""
    content = model.model_dump(mode="json", exclude={*PATIENCE, "endpoints"})
    if isinstance(model, Addressed) and model.endpoints:
        content["meter"] = model.endpoints[0].metered_by
    return content


def _written(value: Knob) -> str:
    """A knob as a study file has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def load_study(path: str | Path) -> LoadedStudy:
    """A study file and its search space. Raises SpecError that says file, line, key and what is allowed."""
    path = Path(path)
    source = Source.read(path)
    spec = source.validate(StudySpec)
    options = _task_options(source, spec)
    space_path = path.parent / spec.search_space
    if not space_path.is_file():
        raise source.error(
            ("search_space",),
            f"there is no file {space_path}",
            hint="a relative path starts from the study file's folder; tuner init DIR writes a space to begin with",
        )
    space = load_space(space_path)
    for workflow, rates in spec.profile.rates.items():
        key = ("profile", "rates", workflow)
        if workflow not in space.workflows:
            known = ", ".join(space.workflows)
            raise source.error(
                key,
                f"is not in the search space, which has: {known}",
                hint="name a workflow of the space, or add this one there",
            )
        if rates == "knee" and options.examples < P95_NEEDS:
            raise source.error(
                key,
                f"a knee compares 95th percentiles, and {options.examples} questions have none",
                f"ask {P95_NEEDS} or more (task: examples)",
            )
    study = LoadedStudy(
        path=path,
        spec=spec,
        space=space,
        task_options=options,
        storage_url=storage_url(source, spec.storage),
    )
    check_roles(space, space_path, study.models)
    if isinstance(spec.executor, OnRay):
        _require_own_gpus(source, spec)
    if spec.sampler.name == "grid":
        _require_listed(source, study)
    return study


def _require_own_gpus(source: Source, spec: StudySpec) -> None:
    """Raise SpecError for servers on workers that would take, or measure, GPUs of their neighbours."""
    for name, model in spec.models.items():
        if isinstance(model, Program) and model.gpus:
            raise source.error(
                ("models", name, "gpus"),
                "on Ray, each worker has its GPUs from the cluster",
                hint="leave it out; executor: {ray: {num_gpus: N}} says how many a worker gets",
            )
        meter = None if isinstance(model, Addressed) or model.meter is None else model.meter.root
        if isinstance(meter, NvmlSpec) and meter.nvml != "visible":
            raise source.error(
                ("models", name, "meter", "nvml"),
                "on Ray, a worker's GPUs are known once it has them; others of its machine are not its own",
                hint="meter: {nvml: visible}",
            )


def _require_listed(source: Source, study: LoadedStudy) -> None:
    size = study.space.size(study.models)
    if size is None or size > LARGEST_GRID:
        has = "a continuum of configs" if size is None else f"{size:,} configs"
        raise source.error(
            ("sampler", "name"),
            f"grid tries every config, and the search space has {has}; {LARGEST_GRID:,} at most",
            hint="give every knob a few values or a step, or use another sampler",
        )


def _task_options(source: Source, spec: StudySpec) -> TaskOptions:
    name = spec.task.get("name")
    if name is None:
        raise source.error(("task",), "has no name", hint=f"known tasks: {', '.join(TASKS)}")
    try:
        model = task_options(str(name))
    except SpecError as error:
        raise source.error(("task", "name"), str(error), error.hint) from None
    return source.below("task", without="name").validate(model)


def storage_url(source: Source, storage: str) -> str:
    """The database that the key `storage` of a file names, by an absolute path if it is one. Raises SpecError."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(storage)
    except ArgumentError:
        raise source.error(
            ("storage",),
            "is no database URL",  # it may hold a password
            hint="sqlite:///tuner.db, or postgresql+psycopg://USER@HOST/DATABASE",
        ) from None
    if url.password or "password" in url.query:
        raise source.error(
            ("storage",),
            "holds a password, which belongs in no file",
            hint="leave it out: the environment variable PGPASSWORD has it, or the file ~/.pgpass (PGPASSFILE)",
        )
    if url.get_backend_name() != "sqlite":
        _require_driver(source, url)
        return storage
    if not url.database or url.database == ":memory:":
        raise source.error(
            ("storage",), "a study must outlive its process", hint="sqlite:///tuner.db"
        )
    file = (source.path.parent / url.database).resolve()
    if not file.parent.is_dir():
        raise source.error(
            ("storage",),
            f"there is no folder {file.parent}",
            hint="make it, or name another: a relative path starts from the study file's folder",
        )
    return url.set(database=str(file)).render_as_string(hide_password=False)


def _require_driver(source: Source, url: "URL") -> None:
    from sqlalchemy.exc import NoSuchModuleError

    try:
        url.get_dialect().import_dbapi()
    except NoSuchModuleError:
        raise source.error(
            ("storage",), f"no database is called {url.drivername!r}", hint="sqlite:///tuner.db"
        ) from None
    except ImportError as error:
        raise source.error(
            ("storage",),
            f"{url.drivername} needs a driver: {error}",
            hint="install the driver beside tuner, or use sqlite:///tuner.db",
        ) from None


def fingerprint_of(content: Any) -> str:
    """16 hex digits that change when the content does; it must be plain JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
