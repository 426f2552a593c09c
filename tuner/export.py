"""From a study to one configuration that runs: the file that carries what a rule chose."""

import math
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from tuner.costs import costs_of
from tuner.errors import UserError
from tuner.intervals import Interval
from tuner.results import Front
from tuner.results import Point
from tuner.rules import Choice
from tuner.rules import Rule
from tuner.rules import recommend
from tuner.spec import LoadedStudy
from tuner.store import Store
from workflows.agent_pack import AgentPack
from workflows.config import AgentConfig
from workflows.config import AgentFile
from workflows.config import ExportedModel
from workflows.config import ModelSettings
from workflows.config import dump_agent_file


def export(study: LoadedStudy, store: Store, *, rule: Rule, out: Path) -> Choice:
    """Write the config that a rule recommends, with all that it needs to run; gives what was chosen, and why."""
    found = Front.read(study, store, deployable=True)
    if not found.search and Front.read(study, store).search:
        raise UserError(
            "every trial within the constraints was told when its answer was right (feedback: oracle), "
            "which nobody can do in deployment",
            hint="give the workflow `feedback: [self]` in a study of another name",
        )
    choice = recommend(found, rule)
    point = choice.point
    config, row = point.trial.config, store.row()
    if config is None or row is None:
        raise UserError("the study has no complete trial yet")
    task = study.load_task()
    store.require(study.fingerprint(task))  # the pack that is written must be the one measured
    models = {name: row.provenance["models"][name] for name in config.models()}
    agent = AgentFile(
        format_version=1,
        config=config,
        models={
            name: ExportedModel(settings=_reachable(model), serve=model["serve"])
            for name, model in models.items()
        },
        pack=_needed(task.pack, config),
        provenance={
            "study": study.spec.name,
            "trial": point.trial.number,
            "rule": rule.text,
            "why": choice.why,
            "runner_up": None if choice.runner_up is None else choice.runner_up.trial.number,
            "exported_on": date.today().isoformat(),
            "task": {**study.spec.task, "fingerprint": task.fingerprint()},
            "load": study.spec.load.model_dump(),
            "cache": {name: model["cache"] for name, model in models.items()},
            "measured": _measured(found, point, store, study),
            "energy": {name: model["energy"] for name, model in models.items()},
            "versions": row.provenance["versions"],
            "python": row.provenance["python"],
            "machine": row.provenance["machine"],
        },
    )
    try:
        dump_agent_file(agent, out)
    except OSError as error:
        raise UserError(f"--out: {error.filename} cannot be written: {error.strerror}") from None
    return choice


def _reachable(model: Mapping[str, Any]) -> ModelSettings:
    """The settings, less the address of a server that is gone when the study ends."""
    settings = ModelSettings.model_validate(model["settings"])
    return settings.model_copy(update={"api_base": None}) if model["serve"] else settings


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


def _measured(front: Front, point: Point, store: Store, study: LoadedStudy) -> dict[str, Any]:
    load = study.spec.load.model_dump()
    trial_id = point.trial.trial_id
    return {
        same.split: {
            **describe(same),
            "costs": costs_of(store.runs(trial_id, same.split), load=load).model_dump(mode="json"),
        }
        for same in (*front.candidates, *front.confirmed)
        if same.trial.trial_id == trial_id
    }


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
