"""How a study was measured, as terms and what they were: hardware, servers, energy, load, cache, versions, seeds, questions.

Apart from the report that shows it: it follows from the study's file and the provenance that its storage keeps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuner.profile.text import load as load_in_words
from tuner.samplers import POOLED
from tuner.spec import LoadedStudy
from tuner.store import Store
from tuner.table import REPLAYED


@dataclass(frozen=True, slots=True)
class Facts:
    """Some of them, under one title."""

    title: str
    facts: tuple[tuple[str, str], ...]


def conditions(study: LoadedStudy, store: Store) -> tuple[Facts, ...]:
    """All that is known of them; what is not known says so."""
    row = store.row()
    kept: Mapping[str, Any] = {} if row is None else row.provenance
    fingerprint: Mapping[str, str] = {} if row is None else row.fingerprint
    models = kept.get("models", {})
    return (
        _where(kept),
        *(_model(name, model) for name, model in models.items()),
        _how(study),
        Facts("Questions", tuple(_questions(study, fingerprint))),
    )


def is_replayed(facts: tuple[Facts, ...]) -> bool:
    """Whether the figures come from a recorded table."""
    return any(term == "replayed" for each in facts for term, _ in each.facts)


def _where(kept: Mapping[str, Any]) -> Facts:
    facts = []
    replayed = kept.get("replayed")
    if replayed:
        facts.append(
            (
                "replayed",
                f"no agent was run: figures are those of study {replayed['study']}, recorded on {replayed['recorded_on']} "
                f"(table {replayed['table']}); machine, server and meter below are those it was recorded with",
            )
        )
    versions = kept.get("versions", {})
    facts += [
        ("machine", _or_unknown(kept.get("machine"))),
        ("Python", _or_unknown(kept.get("python"))),
        ("versions", ", ".join(f"{name} {of}" for name, of in versions.items()) or "unknown"),
    ]
    return Facts("Machine", tuple(facts))


def _model(name: str, model: Mapping[str, Any]) -> Facts:
    settings, energy = model.get("settings", {}), model.get("energy", {})
    facts = [("called", _or_unknown(settings.get("model")))]
    if model.get("serve"):
        serve = dict(model["serve"])
        engine = serve.pop("engine", "unknown")
        facts.append(("server", str(serve.pop("engine_version", None) or engine)))
        facts += [(key, _plain(value)) for key, value in serve.items() if value is not None]
    else:
        facts.append(("server", f"at an address, {settings.get('api_base') or 'the provider’s'}"))
    told = {"timeout_s": "time-out, s", "max_retries": "retries", "endpoint": "endpoint"}
    facts += [(term, _plain(settings[key])) for key, term in told.items() if key in settings]
    source = str(energy.get("source", "unknown"))
    facts += [
        ("prefix cache between trials", _or_unknown(model.get("cache"))),
        ("energy", f"{source}, of {energy.get('scope', 'unknown')}"),
    ]
    if energy.get("tick_s") is not None:
        facts.append(("meter’s tick, s", _plain(energy["tick_s"])))
    if source.startswith(REPLAYED):
        facts.append(("marked", "joules are the table’s, not of this machine"))
    return Facts(f"Model {name}", tuple(facts))


def _how(study: LoadedStudy) -> Facts:
    spec = study.spec
    racing = (
        "none: the sampler gives questions a few at a time"
        if spec.sampler.name == POOLED
        else "off"
        if spec.racing is False
        else f"{100 * spec.racing.confidence:g} % sure, every {spec.racing.block} questions"
    )
    load = load_in_words(spec.load.model_dump())
    edges = [
        f"{n} {what}"
        for n, what in ((spec.load.warm_up, "to warm up"), (spec.load.cool_down, "to cool down"))
        if n
    ]
    facts = [
        ("load", ", ".join([load, *edges])),
        ("sampler", f"{spec.sampler.name}, seed {spec.sampler.seed}"),
        ("racing", racing),
        ("answers to a question", "1" if spec.repeats == 1 else f"1 to {spec.repeats}"),
        ("search space", f"{study.space.name}, {_size(study)}"),
        ("constraints", ", ".join(f"{k} {v}" for k, v in spec.constraints.items()) or "none"),
    ]
    if spec.warm_start:
        facts.append(("warm start", ", ".join(spec.warm_start)))
    return Facts("Search", tuple(facts))


def _size(study: LoadedStudy) -> str:
    size = study.space.size(study.models)
    return "a continuum of configs" if size is None else f"{size:,} configs"


def _questions(study: LoadedStudy, fingerprint: Mapping[str, str]) -> list[tuple[str, str]]:
    options = study.task_options
    own = {
        key: value
        for key, value in study.spec.task.items()
        if key not in ("name", "examples", "holdout", "seed")
    }
    return [
        ("task", str(study.spec.task["name"])),
        *((key, _plain(value)) for key, value in own.items()),
        ("search questions", str(options.examples)),
        ("holdout questions", str(options.holdout or "none")),
        ("seed", str(options.seed)),
        *((f"fingerprint, {part}", value) for part, value in fingerprint.items()),
    ]


def _or_unknown(value: object) -> str:
    return "unknown" if value is None else str(value)


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
