"""Evaluations of earlier studies that hold in this one, and why others do not.

Apart from `study`, which makes trials of them: when two measurements may stand side by side is decided here alone. A
part that an earlier study has not kept counts as different. docs/warm-start.md has the parts and the reasons.
"""

import re
from collections import Counter
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tuner.errors import SpecError
from tuner.errors import StoreError
from tuner.measure.machine import machine
from tuner.records import ExampleRun
from tuner.records import TrialRecord
from tuner.serving import Served
from tuner.serving import model_name
from tuner.spec import LoadedStudy
from tuner.spec import fingerprint_of
from tuner.spec import load_study
from tuner.store import Store
from tuner.store import StudyRow
from tuner.tasks import Example
from tuner.tasks import Task
from workflows.config import AgentConfig
from workflows.config import Knob

Terms = Mapping[str, Any]
"""What must be equal for two measurements to be comparable, by names that a refusal can use; what is not known is left out."""

Keys = frozenset[tuple[str, int]]
"""(example, repeat) of runs."""

CONDITIONS = ("machine", "version of tuner", "score")
"""What may change from one run of a study to the next without making it another study."""

_DIGESTS = ("agent pack", "sha256", "digest")
"""Terms whose values say nothing to a reader."""

_MOST_REASONS = 3
"""Of one refusal: another engine differs in everything."""


@dataclass(frozen=True, slots=True)
class Source:
    """An earlier study whose evaluations are asked for."""

    name: str
    store: Store


@dataclass(frozen=True, slots=True)
class Reusable:
    """What an earlier study has measured of a config of this one: answers to some or all of the search questions."""

    config: AgentConfig
    source: Source
    trial: TrialRecord
    answers: Keys

    @property
    def name(self) -> str:
        """STUDY/TRIAL that it was measured in."""
        return f"{self.source.name}/{self.trial.number}"

    def runs(self) -> tuple[ExampleRun, ...]:
        """The answers, marked as paid for, and runs of extra questions (`edge`) that lay in the same sittings.

        Read when asked for, since a study's traces take more memory than one would hold at once.
        """
        store, trial_id = self.source.store, self.trial.trial_id
        runs = [
            run
            for run in store.runs(trial_id, "search")
            if (run.example_id, run.repeat) in self.answers
        ]
        return tuple(run.taken_over() for run in (*runs, *store.extras(trial_id, "search")))


def evidence(study: LoadedStudy, task: Task, row: StudyRow | None) -> dict[str, Any]:
    """What later studies have to know of a study, for its provenance; `row` is the study as it is kept so far.

    Conditions under which a study is run stand beside those of its earlier runs: evaluations of a study that was
    run under several are nobody's to reuse.
    """
    score = getattr(study.task_options, "score", "the task's own")
    now = {"machine": machine(), "version of tuner": version("tuner"), "score": score}
    unknown: list[dict[str, str]] = [{}] if row is not None and row.search_s else []
    before = unknown if row is None else row.provenance.get("conditions", unknown)
    return {
        "questions": {example.id: _digest(example) for example in task.search},
        "agent pack": fingerprint_of(task.pack.model_dump(mode="json")),
        "conditions": before if now in before else [*before, now],
    }


def open_sources(study: LoadedStudy, stack: ExitStack) -> list[Source]:
    """The studies that `warm_start` names, closed with the stack. Raises UserError for one that is not there."""
    return [_open(study, entry, stack) for entry in study.spec.warm_start]


def reusable(
    study: LoadedStudy, task: Task, store: Store, sources: Sequence[Source]
) -> tuple[list[Reusable], list[str]]:
    """What holds of the sources' evaluations in this study, and a line for each reason why others do not.

    `store` is this study's, and knows the servers that were started: a variant of a model of which
    another variant runs is taken to be like that one in all but its serving knobs. Each config comes
    once, with the most questions that one trial answered; those that the study has already are left out.
    """
    row = store.row()
    assert row is not None  # its owner has registered it
    known = {trial.config_hash for trial in store.trials() if trial.config is not None}
    here = _Here(study, task, row)
    found: dict[str, Reusable] = {}
    refused: list[str] = []
    for source in sources:
        there = source.store.row()
        if there is None:
            continue
        of_all = here.refusal(there)
        reasons: Counter[str] = Counter()
        for trial, config in _evaluations(source.store):
            reason = of_all or here.refusal_of(config, there)
            keys: Keys = frozenset() if reason else here.asked(trial, source.store, there)
            if not keys:
                reasons[reason or "none of the questions answered is asked here"] += 1
            elif config.hash() not in known:
                best = found.get(config.hash())
                if best is None or len(keys) > len(best.answers):
                    found[config.hash()] = Reusable(config, source, trial, keys)
        refused += [
            f"{source.name}: {count} {'trial' if count == 1 else 'trials'} refused: {reason}"
            for reason, count in reasons.items()
        ]
    return list(found.values()), refused


def _open(study: LoadedStudy, entry: str, stack: ExitStack) -> Source:
    where = f"{study.path}: warm_start: {entry}"
    path = study.path.parent / entry
    name, url = entry, study.storage_url
    if path.is_file():
        other = load_study(path)
        name, url = other.spec.name, other.storage_url
    elif "/" in entry or Path(entry).suffix in (".yaml", ".yml"):
        raise SpecError(
            f"{where}: there is no file {path}",
            hint="give a study file, relative to this one, or the name of a study of the same storage",
        )
    if (name, url) == (study.spec.name, study.storage_url):
        raise SpecError(
            f"{where}: is this study itself",
            hint="what it has evaluated is never run again anyway: leave it out",
        )
    try:
        store = Store.open(url, name)
    except StoreError as error:
        raise StoreError(f"{where}: {error}", hint=error.hint) from None
    stack.callback(store.close)
    return Source(name, store)


def _evaluations(store: Store) -> Iterator[tuple[TrialRecord, AgentConfig]]:
    """Trials with runs of their own, the open and the stopped ones included."""
    for trial in store.trials():
        is_own = trial.state in ("complete", "running") and trial.replay_of is None
        if is_own and trial.config is not None:
            yield trial, trial.config


class _Here:
    """This study, as the evaluations of others are held against it."""

    def __init__(self, study: LoadedStudy, task: Task, row: StudyRow) -> None:
        self._study = study
        self._provenance = row.provenance
        self._terms = _terms(row)
        self._asked = {example.id: _digest(example) for example in task.search}
        self._held_out = {_digest(example) for example in task.holdout}

    def refusal(self, there: StudyRow) -> str | None:
        """Why nothing of a study holds here."""
        reasons = _unlike(_terms(there), self._terms)
        seen = len(self._held_out & set(there.provenance.get("questions", {}).values()))
        if seen:
            reasons.append(f"its search saw {seen} of the questions that are held out here")
        return "; ".join(reasons) or None

    def refusal_of(self, config: AgentConfig, there: StudyRow) -> str | None:
        """Why no evaluation of a config by a study that may hold does hold here."""
        if not self._study.space.holds(config, self._study.models):
            return "not in the search space here"
        custom = next(filter(_is_custom, (config.workflow, *config.params.values())), None)
        if custom is not None:
            return f"the code of {custom} may have changed"
        unlike = {
            name: _unlike(_terms_of_model(there.provenance, name), self._model(name))
            for name in config.models()
        }
        reasons = [f"model {name}: {', '.join(found)}" for name, found in unlike.items() if found]
        return "; ".join(reasons) or None

    def asked(self, trial: TrialRecord, store: Store, there: StudyRow) -> Keys:
        """Which runs of a trial answer questions that are asked here."""
        digests = there.provenance["questions"]
        return frozenset(
            (example, repeat)
            for example, repeat in store.finished(trial.trial_id, "search")
            if repeat < self._study.spec.repeats and digests[example] == self._asked.get(example)
        )

    def _model(self, name: str) -> Terms:
        """A model's terms here: those of the variant that runs, with this variant's knobs, where it was not started yet."""
        models = self._provenance.get("models", {})
        if name in models:
            return _terms_of_model(self._provenance, name)
        alike = next((other for other in models if model_name(other) == model_name(name)), None)
        if alike is None:
            return {}
        spec = self._study.spec.models[model_name(name)]
        knobs = spec.choices() if isinstance(spec, Served) else {}
        served = self._study.variants[name].model_dump(mode="json", include=set(knobs))
        return {**_terms_of_model(self._provenance, alike), **served}


def _terms(row: StudyRow) -> Terms:
    """What a study as a whole was measured under."""
    spec, provenance = row.spec, row.provenance
    conditions = provenance.get("conditions", [])
    terms = {
        "task": spec["task"]["name"],
        "agent pack": provenance.get("agent pack"),
        "wording of questions": "kept" if "questions" in provenance else None,
        "tool_delay_s": spec["task"].get("tool_delay_s", 0.0),
        "load": ", ".join(f"{key} {value}" for key, value in spec["load"].items() if value),
        "cache": spec["cache"],
        **{part: _all_of([each.get(part) for each in conditions]) for part in CONDITIONS},
    }
    return {part: value for part, value in terms.items() if value is not None}


def _all_of(values: Sequence[str | None]) -> str | None:
    """The one value that they are, or all that there are; None where one is not known."""
    known = [value for value in dict.fromkeys(values) if value is not None]
    return " and ".join(known) if known and None not in values else None


def _terms_of_model(provenance: Mapping[str, Any], name: str) -> Terms:
    """What a model was served and metered by; nothing where it was not started, or not kept."""
    model = provenance.get("models", {}).get(name, {})
    if "server" not in model:
        return {}
    return {
        **model["server"],
        "separation of caches": model["cache"],
        "source of energy readings": model["energy"]["source"],
        "meter": re.sub(r"process \d+", "process", model["energy"]["scope"]),
    }


def _unlike(theirs: Terms, ours: Terms) -> list[str]:
    """In what they differ, part by part, and what of them is not known."""
    if not theirs:
        return ["what served it is not known"]
    reasons = []
    for part in {**ours, **theirs}:
        if part not in theirs:
            reasons.append(f"its {part} is not known")
        elif part not in ours or theirs[part] != ours[part]:
            values = f" ({theirs[part]}; here {ours.get(part, 'none')})"
            reasons.append(f"another {part}{'' if part in _DIGESTS else values}")
    left = len(reasons) - _MOST_REASONS
    return [*reasons[:_MOST_REASONS], *([f"and {left} more"] if left > 0 else [])]


def _is_custom(value: Knob) -> bool:
    """Whether a workflow, or a knob that names one, is a function of the user's."""
    return isinstance(value, str) and ":" in value


def _digest(example: Example) -> str:
    """16 hex digits that change when a question, an answer or what the scorer knows of it does."""
    content = [example.id, example.question, example.answers, example.secret]
    return fingerprint_of(content)
