"""An exported config measured again, against what its file claims.

Apart from `validate`, which confirms a study's front on questions that it never saw: here the questions are those of
the claim, so that what has changed since is seen question by question, and `claims` says whether the figures hold.
"""

import asyncio
import math
import os
import time
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any
from typing import Self

import numpy as np
import psutil
from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import ValidationError

from tuner.claims import Judged
from tuner.claims import Outcome
from tuner.claims import judge
from tuner.deploy import Deployed
from tuner.deploy import deploy
from tuner.errors import DataError
from tuner.errors import SpecError
from tuner.errors import UserError
from tuner.executors.fleet import NOWHERE_ELSE
from tuner.executors.fleet import Running
from tuner.executors.fleet import greet
from tuner.executors.local import LocalExecutor
from tuner.load import Load
from tuner.measure.machine import machine
from tuner.objectives import OBJECTIVES
from tuner.objectives import Amounts
from tuner.objectives import Objective
from tuner.objectives import by_question
from tuner.records import ExampleRun
from tuner.serving.models import Say
from tuner.table import REPLAYED
from tuner.table import load_recorded_task
from tuner.tasks import Example
from tuner.tasks import Split
from tuner.tasks import Task
from tuner.tasks import load_task
from tuner.tasks import task_options
from workflows.config import AgentFile
from workflows.config import load_agent_file

TELL_EVERY = 10
"""Questions."""

BUSY_CORES = 0.25
"""Cores that others use without being spoken of."""


class _Measured(BaseModel):
    """What an export says that a split showed."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    values: dict[str, float]
    sources: dict[str, str]
    answers: dict[str, list[str | int | float | None]]


class _Told(BaseModel):
    """What an export must say of its measurement, for it to be made again."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    task: dict[str, Any]
    task_files: dict[str, str]
    load: Load
    cache: dict[str, str]
    measured: dict[Split, _Measured]
    hardware: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What became of the claims of one file."""

    split: Split
    questions: int
    """Asked again."""
    of: int
    """Of the claim."""
    failed: int
    """Of those asked: they count as wrong, at what they took."""
    claims: tuple[Judged, ...]
    left_out: Mapping[str, str]
    """Figures that cannot be compared, and why."""
    notes: tuple[str, ...]

    @property
    def outcome(self) -> Outcome:
        """`fails` where one figure does, else `undecided` where one is, or where there is none at all."""
        outcomes = {claim.outcome for claim in self.claims}
        if "fails" in outcomes:
            return "fails"
        return "holds" if outcomes == {"holds"} else "undecided"


def verify(
    path: Path,
    *,
    questions: int | None = None,
    tolerances: Mapping[str, float] | None = None,
    data: Path | None = None,
    allow_custom: bool = False,
    say: Say = lambda _: None,
) -> Verification:
    """Ask an exported config the questions of its claim again, or the first so many, and judge each figure.

    Servers, load, cache, seeds and meters are those of the claim. `tolerances` replace `claims.TOLERANCES` by figure;
    `data` is where the task's relative paths start from, if the study's folder is not where it was. Raises ConfigError
    and UserError for a file that cannot be used or says too little, DataError and UserError where its questions are
    not there any more or are others now, and ServingError where a server does not come up or is gone.
    """
    file = load_agent_file(path)
    told = _read(path, file)
    split: Split = "holdout" if "holdout" in told.measured else "search"
    claim = told.measured[split]
    known = [name for name in claim.values if name in OBJECTIVES]
    for name in tolerances or {}:
        if name not in known:
            raise UserError(
                f"--tolerance {name}: {path} does not claim it; it claims: {', '.join(known)}",
                hint="give a tolerance for what it claims, or none",
            )
    task = replace(_load_task(path, told, data), pack=file.pack)
    examples = _examples(path, task, split, claim, questions)
    say(f"{path}: {len(examples)} {split} questions are asked again")
    with deploy(path, allow_custom=allow_custom, say=say) as deployed:
        with _Neighbours(deployed) as neighbours:
            runs = asyncio.run(_ask(deployed, task, told, examples, say))
        sources = {name: each.meter.source for name, each in deployed.running.items()}
        notes = (*_notes(told, split, file, deployed), *neighbours.notes)
    claims, left_out = [], {}
    for name in known:
        objective = OBJECTIVES[name]
        before = _claimed(objective, claim, [example.id for example in examples])
        now = objective.answers(runs)
        reason = _incomparable(objective, claim, told, sources, before, now, runs)
        if reason is not None or before is None or now is None:
            left_out[name] = reason or "is missing"
            continue
        claims.append(judge(objective, before, now, tolerance=(tolerances or {}).get(name)))
    return Verification(
        split=split,
        questions=len(examples),
        of=len(task.examples(split)),
        failed=sum(run.error is not None for run in runs),
        claims=tuple(claims),
        left_out=left_out,
        notes=notes,
    )


def _read(path: Path, file: AgentFile) -> _Told:
    try:
        told = _Told.model_validate(file.provenance)
        if not told.measured:
            raise UserError(
                f"{path}: provenance.measured: is empty: there is no claim to verify",
                hint="export it again from its study: tuner export STUDY --rule RULE --out FILE",
            )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("provenance", *first["loc"]))
        raise UserError(
            f"{path}: {where}: {first['msg']}: what it takes to measure again is not in this file",
            hint="an earlier version of tuner wrote less: export it again",
        ) from None
    return told


def _load_task(path: Path, told: _Told, data: Path | None) -> Task:
    """The task of the claim. Raises UserError where its questions are others by now."""
    content = {key: value for key, value in told.task.items() if key not in ("name", "fingerprint")}
    name = str(told.task.get("name"))
    base = path.parent / told.task_files.get("folder", ".") if data is None else data
    try:
        options = task_options(name).model_validate(content)
    except (SpecError, ValidationError) as error:
        raise UserError(
            f"{path}: provenance.task: {error}",
            hint="export it again from its study, or mend what was edited",
        ) from None
    try:
        if "table" in told.task_files:
            table = path.parent / told.task_files["table"]
            task = load_recorded_task(table, name, options, base=base)
        else:
            task = load_task(name, options, base=base)
    except DataError as error:
        raise UserError(
            f"{path}: provenance.task: {error}",
            hint="if the study's folder is elsewhere now, say where its files are: --data FOLDER",
        ) from None
    if task.fingerprint() != told.task.get("fingerprint"):
        raise UserError(
            f"{path}: provenance.task: the questions are not those of the claim any more: their fingerprint is "
            f"{task.fingerprint()}, and was {told.task.get('fingerprint')}",
            hint="put the data back as it was; what was claimed says nothing of other questions",
        )
    return task


def _examples(
    path: Path, task: Task, split: Split, claim: _Measured, questions: int | None
) -> Sequence[Example]:
    examples = task.examples(split)
    asked = set(claim.answers.get("question", []))
    if any(example.id not in asked for example in examples):
        raise UserError(
            f"{path}: provenance.measured.{split}.answers: lacks some of the split's questions",
            hint="export it again",
        )
    if questions is not None and questions > len(examples):
        raise UserError(
            f"--questions {questions}: the claim has {len(examples)} {split} questions",
            hint="a study with a larger `holdout` claims more surely",
        )
    return examples[:questions]


async def _ask(
    deployed: Deployed, task: Task, told: _Told, examples: Sequence[Example], say: Say
) -> list[ExampleRun]:
    """The config's runs, made as a study makes them."""
    isolated = any(how != "shared" for how in told.cache.values())
    executor = LocalExecutor(
        fleet=_Deployed(deployed.running),
        task=task,
        load=told.load,
        cache="isolated" if isolated else "shared",
    )
    runs: list[ExampleRun] = []

    def record(run: ExampleRun) -> None:
        if not run.edge:
            runs.append(run)
            if len(runs) % TELL_EVERY == 0:
                say(f"{len(runs)} of {len(examples)} are answered")

    try:
        for name, each in deployed.running.items():  # no question pays for first connections
            await greet(name, each)
        await executor.run(deployed.file.config, examples, record, window=0)
    finally:
        await deployed.agent.close()
    return runs


class _Neighbours:
    """What else this machine computed meanwhile, where it is our own servers that answer: their times are longer for it."""

    def __init__(self, deployed: Deployed) -> None:
        self._applies = all(each.endpoint.pid is not None for each in deployed.running.values())
        self.notes: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        self._began_s, self._before_s = time.perf_counter(), _others_cpu_s()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        cores = (_others_cpu_s() - self._before_s) / (time.perf_counter() - self._began_s)
        if self._applies and cores > BUSY_CORES:
            self.notes = (
                f"other processes kept {cores:.1f} of {os.cpu_count()} cores busy meanwhile, which makes times longer",
            )


def _others_cpu_s() -> float:
    """CPU-seconds of this machine so far, less those of this process and its children."""
    me, every = psutil.Process(), psutil.cpu_times()
    ours = [each.cpu_times() for each in (me, *me.children(recursive=True))]
    return every.user + every.system - sum(each.user + each.system for each in ours)


@dataclass(frozen=True, slots=True)
class _Deployed:
    """Models that are up, as an executor wants them."""

    running: Mapping[str, Running]

    async def bring_up(
        self, names: Sequence[str], places: Mapping[str, int] = NOWHERE_ELSE
    ) -> dict[str, Running]:
        """Those of these names."""
        return {name: self.running[name] for name in names}


def _claimed(objective: Objective, claim: _Measured, asked: Sequence[str]) -> Amounts | None:
    """(questions, answers) of the claim, by id as `Objective.answers` has them; None where one was not measured."""
    answers = claim.answers
    if any(name not in answers for name in objective.fields):
        return None
    rows = sorted(
        (question, place)
        for place, question in enumerate(answers["question"])
        if question in set(asked)
    )
    places = [place for _, place in rows]
    try:
        columns = [np.array([answers[name][k] for k in places], dtype=float) for name in objective.fields]  # fmt: skip
    except (IndexError, TypeError, ValueError):
        return None
    amounts = objective.amounts(*columns)
    if np.isnan(amounts).any():
        return None
    questions = np.array([question for question, _ in rows])
    return by_question(amounts, np.flatnonzero(np.append(True, questions[1:] != questions[:-1])))


def _incomparable(
    objective: Objective,
    claim: _Measured,
    told: _Told,
    sources: Mapping[str, str],
    before: Amounts | None,
    now: Amounts | None,
    runs: Sequence[ExampleRun],
) -> str | None:
    """Why a figure says nothing of the claim, None where it does."""
    if before is None:
        return "the claim has no answer by answer record of it"
    if objective.needs == "meter" or objective.unit == "s":
        here = machine()
        if here != told.hardware:
            return f"was measured on other hardware: {told.hardware}; this is {here}"
    if objective.needs == "meter":
        source = "; ".join(dict.fromkeys(sources.values()))
        then = claim.sources.get("energy", "none").removeprefix(REPLAYED)
        if source != then:
            return f"was measured by {then}, and here is measured by {source}"
        problem = next((run.energy.problem for run in runs if run.energy.problem), None)
        if now is None and problem is not None:
            return f"was not measured on every question: {problem}"
    return "was not measured on every question" if now is None else None


def _notes(told: _Told, split: Split, file: AgentFile, deployed: Deployed) -> tuple[str, ...]:
    """What to know beside the figures."""
    notes = []
    if split == "search":
        notes.append(
            "the claim is of the search questions, by which the config was chosen: it may have been lucky"
        )
    for name, model in file.models.items():
        then = (model.serve or {}).get("engine_version")
        now = (deployed.running[name].endpoint.serve or {}).get("engine_version")
        if then is not None and now != then:
            notes.append(f"model {name}: its engine was {then}, and is {now}")
    return tuple(notes)


def content(found: Verification) -> dict[str, Any]:
    """A verification as plain JSON; ends that so few questions do not tell are null."""
    return {
        "outcome": found.outcome,
        "split": found.split,
        "questions": found.questions,
        "of": found.of,
        "failed": found.failed,
        "claims": [
            {
                "name": claim.name,
                "claimed": claim.claimed,
                "now": claim.now,
                "worse": claim.worse,
                "interval": [end if math.isfinite(end) else None for end in claim.interval],
                "tolerated": claim.tolerated,
                "outcome": claim.outcome,
                "needed": claim.needed,
            }
            for claim in found.claims
        ],
        "left_out": dict(found.left_out),
        "notes": list(found.notes),
    }
