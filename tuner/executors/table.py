"""The executor that a study asks for; apart from the protocol, which every executor itself imports."""

import os
from importlib.util import find_spec

from tuner.errors import UserError
from tuner.events import Report
from tuner.executors import Executor
from tuner.executors.crew import Crew
from tuner.executors.fleet import Fleet
from tuner.executors.fleet import OnStarted
from tuner.executors.fleet import Started
from tuner.executors.local import InThisProcess
from tuner.executors.replay import ReplayExecutor
from tuner.executors.slots import Share
from tuner.executors.slots import Slots
from tuner.executors.workers import Workers
from tuner.spec import LoadedStudy
from tuner.spec import OnRay
from tuner.table import Table
from tuner.tasks import Task


def open_executor(
    study: LoadedStudy,
    task: Task,
    *,
    slots: Slots,
    share: Share,
    report: Report = lambda event: None,
    started: OnStarted = lambda started: None,
    waits: bool = True,
) -> Executor:
    """Where the study's evaluations run, to be opened and closed on one event loop; `started` hears of every server that comes up.

    Unless it `waits`, a server that goes away is an error.

    Raises UserError for a table that does not cover the study, and for what its models lack to be measured.
    """
    if study.table_path is not None:
        return ReplayExecutor(Table.read(study.table_path), study=study, task=task)

    def take_note(server: Started) -> None:
        crew.take_note(server)
        started(server)

    crew = Crew(
        study,
        task,
        _workers(study, task, slots=slots, report=report, started=take_note),
        slots=slots,
        share=share,
        report=report,
        waits=waits,
    )
    return crew


def _workers(
    study: LoadedStudy, task: Task, *, slots: Slots, report: Report, started: OnStarted
) -> Workers:
    where = study.spec.executor
    if isinstance(where, OnRay):
        if where.ray.address == "local":
            # Read as Ray is imported: a cluster of this machine alone then listens on loopback alone.
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        if find_spec("ray") is None:
            raise UserError(
                f"{study.path}: executor: ray: is not installed",
                hint="pip install 'tuner[ray]', here and on the machines of the cluster",
            )
        from tuner.executors.ray import OnRayWorkers

        return OnRayWorkers(where.ray, study, task, slots=slots, report=report, started=started)
    return InThisProcess(Fleet(study, report=report, started=started), task, study.spec.cache)
