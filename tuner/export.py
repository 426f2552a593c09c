"""From a study to configurations that run: the files that carry what a rule chose, or every point of the front."""

import math
import os
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tuner.costs import costs_of
from tuner.errors import UserError
from tuner.intervals import Interval
from tuner.measure import CpuEstimate
from tuner.measure import CpuEstimateSpec
from tuner.measure import MeterSpec
from tuner.records import ExampleRun
from tuner.results import Front
from tuner.results import Point
from tuner.rules import RULES
from tuner.rules import Choice
from tuner.rules import Rule
from tuner.rules import recommend
from tuner.serving import Served
from tuner.spec import LoadedStudy
from tuner.store import Store
from tuner.store import StudyRow
from tuner.tasks import Task
from workflows.agent_pack import AgentPack
from workflows.config import AgentConfig
from workflows.config import AgentFile
from workflows.config import ExportedModel
from workflows.config import ModelSettings
from workflows.config import dump_agent_file

AMOUNTS = ("score", "latency_s", "energy_j", "cost_usd", "tokens_in", "tokens_out")
"""Of each answer, in an export: what objectives are made from, so that another measurement can be paired with it."""

_WITHOUT_ARGUMENT = [name for name, kind in RULES.items() if ":" not in kind.form]

DIGITS = 6
"""Of the amounts of each answer."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A point of the front in a file of its own."""

    point: Point
    path: Path
    recommended_by: Mapping[str, str]
    """Rules without an argument that choose it, each with its reason."""


def export(study: LoadedStudy, store: Store, *, rule: Rule, out: Path) -> Choice:
    """Write the config that a rule recommends, with all that it needs to run; gives what was chosen, and why."""
    choice, agent = chosen(study, store, rule=rule, out=out)
    _write(agent, out)
    return choice


def chosen(study: LoadedStudy, store: Store, *, rule: Rule, out: Path) -> tuple[Choice, AgentFile]:
    """What a rule recommends, and the file that carries it, which is going to stand at `out`.

    Raises UserError where nothing can be recommended, and StoreError where the questions are others by now.
    """
    found = _deployable(study, store)
    choice = recommend(found, rule)
    runner_up = None if choice.runner_up is None else choice.runner_up.trial.number
    said = {"rule": rule.text, "why": choice.why, "runner_up": runner_up}
    return choice, _Exporter(study, store, found).file(choice.point, said, out)


def export_all(study: LoadedStudy, store: Store, *, folder: Path) -> list[Exported]:
    """Write every point of the front into a folder, `trial-12.yaml` each; gives them as they stand on the front.

    The front is the one of the holdout questions where some were confirmed. What is long and common to all stands
    there once. Raises as `chosen` does.
    """
    found = _deployable(study, store)
    points = [point for point in found.confirmed if point.on_front] or list(found.search)
    recommended: dict[int, dict[str, str]] = {point.trial.number: {} for point in points}
    recommend(found, Rule.parse("knee"))  # raises, saying why, where none can be recommended
    for name in _WITHOUT_ARGUMENT:
        try:
            choice = recommend(found, Rule.parse(name))
        except UserError:
            continue  # the study has no objective that it goes by
        recommended[choice.point.trial.number][name] = choice.why
    exporter = _Exporter(study, store, found)
    exported: list[Exported] = []
    for point in points:
        path, by = folder / f"trial-{point.trial.number}.yaml", recommended[point.trial.number]
        said = {"rule": None, "recommended_by": by}
        agent = exporter.file(point, said, path)
        if not exported:
            _make(folder)
        _write(agent, path, beside_as="pack")
        exported.append(Exported(point, path, by))
    return exported


def _deployable(study: LoadedStudy, store: Store) -> Front:
    found = Front.read(study, store, deployable=True)
    if not found.search and Front.read(study, store).search:
        raise UserError(
            "every trial within the constraints was told when its answer was right (feedback: oracle), "
            "which nobody can do in deployment",
            hint="give the workflow `feedback: [self]` in a study of another name",
        )
    return found


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--out: {folder} cannot be made a folder: {error.strerror}",
            hint="name a place in a folder that exists and may be written to",
        ) from None


def _write(agent: AgentFile, path: Path, *, beside_as: str | None = None) -> None:
    try:
        dump_agent_file(agent, path, beside_as=beside_as)
    except OSError as error:
        raise UserError(
            f"--out: {error.filename} cannot be written: {error.strerror}",
            hint="name a place in a folder that exists and may be written to",
        ) from None


class _Exporter:
    """What all files of one study have in common."""

    def __init__(self, study: LoadedStudy, store: Store, found: Front) -> None:
        row = store.row()
        if row is None:
            raise UserError(
                "the study has no complete trial yet",
                hint="tuner status shows how far the study is; tuner run goes on with it",
            )
        self._study, self._store, self._found = study, store, found
        self._row: StudyRow = row
        self._task: Task = study.load_task()
        store.require(
            study.fingerprint(self._task)
        )  # the pack that is written must be the one measured

    def file(self, point: Point, said: Mapping[str, Any], out: Path) -> AgentFile:
        """The file of a point, which is going to stand at `out`; `said` is how it came to be chosen."""
        config = point.trial.config
        if config is None:
            raise UserError(
                "the study has no complete trial yet",
                hint="tuner status shows how far the study is; tuner run goes on with it",
            )
        study, told = self._study, self._row.provenance
        models = {name: told["models"][name] for name in config.models()}
        return AgentFile(
            format_version=1,
            config=config,
            models={
                name: ExportedModel(settings=_reachable(name, model), serve=model["serve"])
                for name, model in models.items()
            },
            pack=_needed(self._task.pack, config),
            provenance={
                "study": study.spec.name,
                "trial": point.trial.number,
                **said,
                "exported_on": date.today().isoformat(),
                "task": {**study.spec.task, "fingerprint": self._task.fingerprint()},
                "task_files": _files(study, out),
                "questions": {
                    "search": study.task_options.examples,
                    "holdout": study.task_options.holdout,
                },
                "seeds": {"task": study.task_options.seed, "sampler": study.spec.sampler.seed},
                "load": study.spec.load.model_dump(),
                "cache": {name: model["cache"] for name, model in models.items()},
                "measured": self._measured(point),
                "energy": {
                    name: {**model["energy"], "meter": _meter(study, name)}
                    for name, model in models.items()
                },
                "servers": {name: _server(model) for name, model in models.items()},
                "hardware": told["machine"],
                "versions": told["versions"],
                "python": told["python"],
                **({"replayed": told["replayed"]} if "replayed" in told else {}),
            },
        )

    def _measured(self, point: Point) -> dict[str, Any]:
        load = self._study.spec.load.model_dump()
        trial_id = point.trial.trial_id
        measured: dict[str, Any] = {}
        for same in (*self._found.candidates, *self._found.confirmed):
            if same.trial.trial_id == trial_id:
                runs = self._store.runs(trial_id, same.split)
                measured[same.split] = {
                    **describe(same),
                    "costs": costs_of(runs, load=load).model_dump(mode="json"),
                    "answers": _answers(runs),
                }
        return measured


def _reachable(name: str, model: Mapping[str, Any]) -> ModelSettings:
    """The settings, less the address of a server that is gone when the study ends."""
    told = model["settings"]
    if model["serve"]:
        told = {**told, "api_base": None}
    try:
        return ModelSettings.model_validate(told)
    except ValidationError as error:  # of before such addresses were refused in studies
        first = error.errors()[0]
        raise UserError(
            f"models.{name}: {'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}",
            hint="leave it out of the address, and name a variable that holds the key: api_key_env",
        ) from None


def _files(study: LoadedStudy, out: Path) -> dict[str, str]:
    """Where the task's files are found from the export's folder, and the table where the study was replayed."""

    def beside(path: Path) -> str:
        return Path(os.path.relpath(path.resolve(), out.resolve().parent)).as_posix()

    table = study.table_path
    folder = {"folder": beside(study.path.parent)}
    return folder if table is None else {**folder, "table": beside(table)}


def _meter(study: LoadedStudy, name: str) -> Any:
    """How the model's energy was measured, as a study's file has it."""
    spec = study.variants[name]
    meter = spec.meter
    if meter is None and isinstance(spec, Served) and spec.on_cpu:
        meter = MeterSpec(CpuEstimateSpec(cpu_estimate=CpuEstimate()))
    return None if meter is None else meter.model_dump(mode="json")


def _server(model: Mapping[str, Any]) -> dict[str, Any]:
    """What served a model: how it was started where the tuner did that, else what it said of itself."""
    serve = model["serve"] or {}
    return {
        "engine": serve.get("engine", model.get("engine")),
        "engine_version": serve.get("engine_version"),
        "started_by_tuner": bool(serve),
        "flags": {
            key: value for key, value in serve.items() if key not in ("engine", "engine_version")
        },
    }


def _answers(runs: Sequence[ExampleRun]) -> dict[str, tuple[Any, ...]]:
    """A column for what each answer scored and cost, less those of what was not measured once; a place each answer."""
    columns: dict[str, tuple[Any, ...]] = {
        "question": tuple(run.example_id for run in runs),
        "repeat": tuple(run.repeat for run in runs),
    }
    for name in AMOUNTS:
        column = tuple(_rounded(getattr(run, name)) for run in runs)
        if any(amount is not None for amount in column):
            columns[name] = column
    return columns


def _rounded(amount: float | None) -> float | None:
    if amount is None or isinstance(amount, int):
        return amount
    return float(f"{amount:.{DIGITS}g}")


def _needed(pack: AgentPack, config: AgentConfig) -> AgentPack:
    """The pack less the demonstrations that the config never shows; a workflow of one's own may show any."""
    if ":" in config.workflow:
        return pack
    most = 0
    for name, knob in config.params.items():
        within, _, own = name.rpartition("few_shot")
        if own or not name.endswith("few_shot") or not knob:
            continue
        if config.params[f"{within}demonstrations"] == "nearest":
            return pack
        most = max(most, int(knob))
    return pack.model_copy(update={"demonstrations": pack.demonstrations[:most]})


def describe(point: Point) -> dict[str, Any]:
    """A point's figures as plain data, as exports and `--json` show them."""
    return {
        "values": dict(point.values),
        "intervals": {name: ends(interval) for name, interval in point.intervals.items()},
        "membership": point.membership,
        "n": point.n,
        "oracle": point.trial.config is not None and point.trial.config.oracle,
        "sources": dict(point.trial.sources),
    }


def ends(interval: Interval) -> list[float | None]:
    """The ends of an interval as plain data: None for one that so few questions do not tell."""
    return [end if math.isfinite(end) else None for end in interval]
