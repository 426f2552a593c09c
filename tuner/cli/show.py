"""`tuner show`: one trial, its config, its values, and its examples one by one."""

from typing import TYPE_CHECKING
from typing import Any

from tuner.cli.arguments import AsJson
from tuner.cli.arguments import StudyPath
from tuner.cli.arguments import TrialNumber

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from tuner.measure.attribution import QueryEnergy
    from tuner.measure.latency import DeviceTime
    from tuner.records import ExampleRun
    from tuner.records import PassRecord
    from tuner.records import Reading
    from tuner.records import TrialRecord
    from tuner.spec import LoadedStudy
    from tuner.store import Store

    Used = Mapping[tuple[str, str, int], QueryEnergy]


def show(study: StudyPath, trial: TrialNumber, as_json: AsJson = False) -> None:
    """Show a trial: config, values, idle time, and each example's answer and cost."""
    from tuner.cli.output import number
    from tuner.cli.output import print_json
    from tuner.cli.output import print_table
    from tuner.results import open_results
    from tuner.spec import load_study

    loaded = load_study(study)
    store = open_results(loaded)
    found = find_trial(store, trial)
    runs = [
        (split, run) for split in ("search", "holdout") for run in store.runs(found.trial_id, split)
    ]
    extras = [
        (split, run)
        for split in ("search", "holdout")
        for run in store.extras(found.trial_id, split)
    ]
    used = _used([*runs, *extras])
    if as_json:
        print_json(_content(found, runs, used, store))
        return
    config = found.config
    rows = [["state", found.state if found.failure is None else f"failed: {found.failure}"]]
    if found.replay_of is not None:
        rows.append(["replay of", f"trial {found.replay_of}"])
    if found.derived_from is not None:
        rows.append(["derived from", f"trial {found.derived_from}"])
    if found.reused_from is not None:
        rows.append(["reused from", found.reused_from])
    if found.stopped is not None:
        rows.append(["stopped", found.stopped])
    if not found.feasible:
        rows.append(["constraints", f"not kept: {_broken(loaded, found)}"])
    if config is not None:
        mark = " (oracle)" if config.oracle else ""
        rows += [["workflow", f"{config.workflow}{mark}"], ["model", config.model]]
        rows += [[f"{config.workflow}.{name}", str(value)] for name, value in config.params.items()]
    rows += _value_rows(found, runs)
    rows += _pass_rows([run for split, run in runs if split == "search"])
    rows += _sitting_rows(store.passes(found.trial_id, "search"))
    print_table(f"Trial {trial} of {loaded.spec.name}", ["", ""], rows)
    print_table(
        "Examples",
        [
            "split",
            "example",
            "score",
            "latency_s",
            "joules",
            "calls",
            "tokens in/out/cached",
            "answer",
        ],
        [
            [
                split,
                run.example_id,
                number(run.score),
                number(run.latency_s),
                _joules(run, used.get((split, run.example_id, run.repeat))),
                f"{run.llm_calls}+{run.tool_calls}",
                f"{run.tokens_in}/{run.tokens_out}/{run.tokens_cached}",
                _line(run.answer if run.error is None else f"failed: {run.error}")[:60],
            ]
            for split, run in runs
        ],
    )


def _broken(study: "LoadedStudy", trial: "TrialRecord") -> str:
    from tuner.cli.output import quantity
    from tuner.condition import Condition

    values = trial.values or {}
    broken = [
        f"{name} {quantity(name, values[name])} is not {text}"
        for name, text in study.spec.constraints.items()
        if name in values and not Condition.parse(text).holds(values[name])
    ]
    return ", ".join(broken)


def _value_rows(trial: "TrialRecord", runs: "list[tuple[str, ExampleRun]]") -> list[list[str]]:
    """What the search was told, and what was confirmed, each with its interval where its runs are here."""
    from tuner.cli.output import quantity
    from tuner.cli.output import value_and_interval
    from tuner.objectives import OBJECTIVES

    rows = []
    for name, value in (trial.values or {}).items():
        objective = OBJECTIVES[name]
        asked = {
            split: objective.answers([run for where, run in runs if where == split])
            for split in ("search", "holdout")
        }
        texts = [
            f"{value_and_interval(name, objective.of(each), objective.interval(each))} ({split})"
            for split, each in asked.items()
            if each is not None
        ]
        rows.append([name, ", ".join(texts) or quantity(name, value)])
    return rows


def _used(runs: "list[tuple[str, ExampleRun]]") -> "Used":
    """What each question used of its pass's energy, by split, example and repeat; without those not known."""
    from tuner.measure.attribution import attribute_all

    return {
        (split, *key): used
        for split in ("search", "holdout")
        for key, used in attribute_all([run for where, run in runs if where == split]).items()
    }


def _joules(run: "ExampleRun", used: "QueryEnergy | None") -> str:
    """What a question used; where that is not known, all that was used since the question before it ended."""
    from tuner.cli.output import number

    joules = run.energy.gross_j if used is None else used.joules
    return "–" if joules is None else number(joules)


def _line(text: str) -> str:
    """A text of several lines, a program say, as one."""
    return " ".join(text.split())


def _pass_rows(runs: "list[ExampleRun]") -> list[list[str]]:
    """What a pass over the search questions took, all questions together."""
    from tuner.cli.output import number
    from tuner.measure.latency import device_time
    from tuner.measure.latency import summarise
    from tuner.measure.window import total

    if not runs:
        return []
    latency, device = summarise([run.latency_s for run in runs]), device_time(runs)
    tokens = [
        [run.tokens_in for run in runs],
        [run.tokens_out for run in runs],
        [run.tokens_cached for run in runs],
    ]
    known = [
        "unknown" if None in counts else str(sum(count or 0 for count in counts))
        for counts in tokens
    ]
    return [
        [
            "latency_s",
            f"mean {number(latency.mean_s)}, p50 {number(latency.p50_s)}, "
            f"p95 {number(latency.p95_s)} (n = {latency.n})",
        ],
        ["tokens", f"{known[0]} in, {known[2]} of them cached, {known[1]} out"],
        [
            "calls",
            f"{sum(run.llm_calls for run in runs)} of the model, "
            f"{sum(run.tool_calls for run in runs)} of tools",
        ],
        ["device", "unknown" if device is None else _device(device)],
        ["energy", _energy(total([run.energy for run in runs]), len(runs))],
    ]


def _device(time: "DeviceTime") -> str:
    """Shares of a pass, prefill and decode apart where replies were streamed."""
    parts = {"prefill": time.prefill_s, "decode": time.decode_s}
    if time.prefill_s is None:
        parts = {"at work": time.window_s - time.idle_s}
    shares = {**parts, "idle": time.idle_s}
    return ", ".join(
        f"{name} {100 * (seconds or 0.0) / time.window_s:.1f} %" for name, seconds in shares.items()
    )


def _energy(energy: "Reading", questions: int) -> str:
    """A pass's joules a question, with what is known of them."""
    from tuner.cli.output import number

    if energy.gross_j is None:
        return f"not metered: {energy.problem}" if energy.source == "none" else str(energy.problem)
    text = f"{number(energy.gross_j / questions)} J a question ({energy.source})"
    if energy.stderr_j is not None:
        text += f" ± {100 * energy.stderr_j / energy.gross_j:.1g} %"
    if energy.idle_j is not None:
        text += f", {number(energy.idle_j / questions)} of them idle"
    if energy.temperature_c is not None:
        text += f", {energy.temperature_c:.0f} °C"
    return text


def _sitting_rows(sittings: "Sequence[PassRecord]") -> list[list[str]]:
    """What was seen of the servers, and whatever makes a pass doubtful."""
    rows = []
    for sitting in sittings:
        rows += [["cache", f"{model}: {how}"] for model, how in sitting.isolation.items()]
        for model, server in sitting.servers.items():
            rows.append([f"server of {model}", _server(server)])
        if sitting.energy.warning is not None:
            rows.append(["doubtful", sitting.energy.warning])
        if sitting.load.get("client_limited"):
            rows.append(["doubtful", f"the client was the limit: {sitting.load['reason']}"])
    return rows


def _server(server: "Mapping[str, Any]") -> str:
    from tuner.cli.output import number

    if server.get("problem"):
        return str(server["problem"])
    known = []
    if server.get("kv_bytes_max") is not None:
        mean, most = (server[f"kv_bytes_{which}"] / 1e6 for which in ("mean", "max"))
        known.append(f"KV {number(mean)} MB, at most {number(most)} ({server['kv_source']})")
    if server.get("prefix_hit_share") is not None:
        known.append(f"{100 * server['prefix_hit_share']:.0f} % of prompt tokens from the cache")
    if server.get("queue_time_mean_s") is not None:
        known.append(f"{number(server['queue_time_mean_s'])} s in the queue")
    return ", ".join(known) or "says nothing of its cache"


def find_trial(store: "Store", number: int) -> "TrialRecord":
    """The trial of that number. Raises UserError saying which there are."""
    from tuner.errors import UserError

    trials = store.trials()
    for trial in trials:
        if trial.number == number:
            return trial
    if not trials:
        raise UserError(
            f"there is no trial {number}", hint="there are none yet: tuner run STUDY makes them"
        )
    raise UserError(f"there is no trial {number}", hint=f"they go from 0 to {trials[-1].number}")


def _content(
    trial: "TrialRecord", runs: "list[tuple[str, ExampleRun]]", used: "Used", store: "Store"
) -> dict[str, Any]:
    from dataclasses import asdict

    def plain(split: str, run: "ExampleRun") -> dict[str, Any]:
        content = asdict(run)
        for bulk in ("spans", "samples"):
            content.pop(bulk)
        own = used.get((split, run.example_id, run.repeat))
        return {**content, "used": None if own is None else asdict(own)}

    return {
        "trial": trial.number,
        "state": trial.state,
        "config": None if trial.config is None else trial.config.model_dump(),
        "values": trial.values,
        "feasible": trial.feasible,
        "replay_of": trial.replay_of,
        "derived_from": trial.derived_from,
        "reused_from": trial.reused_from,
        "stopped": trial.stopped,
        "failure": trial.failure,
        "sources": dict(trial.sources),
        "passes": [
            {"split": split, **asdict(sitting)}
            for split in ("search", "holdout")
            for sitting in store.passes(trial.trial_id, split)
        ],
        "examples": [{"split": split, **plain(split, run)} for split, run in runs],
    }
