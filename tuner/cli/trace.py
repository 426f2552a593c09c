"""`tuner trace`: one agent run, as a tree of its rounds and calls."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Annotated

import typer

from tuner.cli.arguments import AsJson
from tuner.cli.arguments import ExampleId
from tuner.cli.arguments import StudyPath
from tuner.cli.arguments import TrialNumber

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from tuner.measure.attribution import QueryEnergy
    from tuner.records import ExampleRun
    from tuner.records import TrialRecord
    from tuner.spec import LoadedStudy
    from tuner.store import Store
    from workflows.trace import Span

    Runs = Mapping[str, Sequence[ExampleRun]]
    Joules = Sequence[float | None]

LINES = 4
"""Lines of what was asked or said that are shown, unless all is asked for."""

IDLE_S = 0.05
"""Gaps between calls from which on they are shown."""


def trace(
    study: StudyPath,
    trial: TrialNumber,
    example: ExampleId = None,
    full: Annotated[bool, typer.Option("--full", help="All of what was asked and said.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one agent run as a tree: its rounds, each call with its time, tokens and joules, and what was said.

    Without EXAMPLE, list the examples that the trial has answered.
    """
    from contextlib import closing
    from dataclasses import asdict

    from tuner.cli.output import print_json
    from tuner.cli.show import find_trial
    from tuner.results import open_results
    from tuner.spec import load_study

    loaded = load_study(study)
    with closing(open_results(loaded)) as store:
        found = find_trial(store, trial)
        runs: Runs = {
            split: store.runs(found.trial_id, split) for split in ("search", "holdout")
        }  # fmt: skip
        if example is None:
            _list(trial, runs, as_json=as_json)
            return
        chosen = _chosen(trial, runs, example)
        if as_json:
            print_json([asdict(run) for _, run in chosen])
            return
        _print_trees(loaded, store, found, runs, chosen, full=full)


def _list(trial: int, runs: "Runs", *, as_json: bool) -> None:
    """What the trial has answered."""
    from tuner.cli.output import command
    from tuner.cli.output import number
    from tuner.cli.output import print_json
    from tuner.cli.output import print_table
    from tuner.cli.output import talk

    each = [(split, run) for split, of_split in runs.items() for run in of_split]
    if as_json:
        print_json([{"split": split, "example": run.example_id, "repeat": run.repeat, "score": run.score} for split, run in each])  # fmt: skip
        return
    print_table(
        f"Examples of trial {trial}",
        ["example", "score", "latency_s", "calls", "answer"],
        [
            [
                run.example_id,
                number(run.score),
                number(run.latency_s),
                f"{run.llm_calls}+{run.tool_calls}",
                " ".join((run.error or run.answer).split())[:60],
            ]
            for _, run in each
        ],
    )
    if each:
        talk(f"see one with: {command()} trace STUDY {trial} {each[0][1].example_id}")


def _chosen(trial: int, runs: "Runs", example: str) -> "list[tuple[str, ExampleRun]]":
    """The runs of that example. Raises UserError that lists what there is."""
    from difflib import get_close_matches

    from tuner.errors import UserError

    known = list(dict.fromkeys(run.example_id for each in runs.values() for run in each))
    if example in known:
        return [
            (split, run)
            for split, each in runs.items()
            for run in each
            if run.example_id == example
        ]
    close = get_close_matches(example, known, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    listed = ", ".join(known) or "none yet: tuner status shows how far the study is"
    raise UserError(f"trial {trial} has no example {example!r}", hint=f"{meant}it has: {listed}")


def _print_trees(
    study: "LoadedStudy",
    store: "Store",
    trial: "TrialRecord",
    runs: "Runs",
    chosen: "Sequence[tuple[str, ExampleRun]]",
    *,
    full: bool,
) -> None:
    from rich.console import Console

    from tuner.cli.output import marked
    from tuner.cli.output import width
    from tuner.measure.attribution import attribute_all
    from tuner.measure.attribution import attribute_calls

    console = Console(width=width(), highlight=False, markup=False)
    for split, run in chosen:
        # What a question used shows in the whole of its window, of which the extra questions are a part.
        window = [
            each
            for each in (*runs[split], *store.extras(trial.trial_id, split))
            if each.window == run.window
        ]
        key = (run.example_id, run.repeat)
        used, joules = attribute_all(window).get(key), attribute_calls(window).get(key)
        console.print(_tree(study, marked(study, trial), split, run, used, joules or (), full=full))


def _tree(
    study: "LoadedStudy",
    label: str,
    split: str,
    run: "ExampleRun",
    used: "QueryEnergy | None",
    joules: "Joules",
    *,
    full: bool,
) -> "Tree":
    from rich.text import Text
    from rich.tree import Tree

    from tuner.cli.output import plain

    told = ", told when it was right (oracle)" if run.oracle else ""
    head = Text(f"{run.example_id} ({split}): answer {run.answer!r}, score {run.score:g}{told}", "bold")  # fmt: skip
    if run.error is not None:
        head.append(f"\nfailed: {plain(run.error)}", style="red")
    head.append(f"\n{label}", style="dim")
    head.append(f"\n{_summary(run)}", style="dim")
    if used is not None:
        head.append(f"\n{_energy(run, used)}", style="dim")
    tree = Tree(head, guide_style="dim")
    if not run.spans:
        tree.add(Text("its calls were not kept", style="dim"))
        return tree
    shown = ""
    reached = 0.0
    for title, places in _rounds(study, run, used):
        branch = tree if title is None else tree.add(Text(title, style="bold cyan"))
        ordered = sorted(places, key=lambda place: run.spans[place].start_s)
        for group in _at_once(run, ordered):
            spans = [run.spans[place] for place in group]
            idle_s = spans[0].start_s - reached
            if idle_s >= IDLE_S:
                branch.add(Text(f"{idle_s:.2f} s without a call", style="dim"))
            reached = max(reached, *(span.end_s for span in spans))
            node = branch if len(group) == 1 else branch.add(Text(_overlap(spans), style="magenta"))
            for place in group:
                span = run.spans[place]
                call = node.add(_call(span, joules[place] if joules else None))
                # A prompt usually goes on where the one before ended: only what is new is worth reading.
                new = span.input.removeprefix(shown) if shown else span.input
                _say(call, "›", new, "", full=full, last=True)
                _say(call, "‹", span.output, "green" if span.error is None else "red", full=full)
                if span.error is not None:
                    call.add(Text(f"[{plain(span.error)}]", style="red"))
                if span.kind == "llm":
                    shown = span.input
    idle_s = run.latency_s - reached
    if idle_s >= IDLE_S:
        tree.add(Text(f"{idle_s:.2f} s without a call", style="dim"))
    return tree


def _summary(run: "ExampleRun") -> str:
    """Where the time went, and what was said in all."""
    from tuner.measure.latency import breakdown

    tokens = f"{_count(run.tokens_in)} tokens in ({_count(run.tokens_cached)} cached), {_count(run.tokens_out)} out"
    parts = [f"{run.latency_s:.3g} s"]
    time = breakdown(run)
    if time is not None:
        named = {
            "model": time.llm_only_s,
            "model and tools at once": time.overlap_s,
            "tools": time.tool_only_s,
            "neither": time.other_s,
        }
        told = [f"{what} {seconds:.2f}" for what, seconds in named.items() if seconds >= 0.005]
        parts[0] += f" ({', '.join(told)})" if told else ""
    calls = f"{run.llm_calls} model and {run.tool_calls} tool calls"
    return ", ".join([*parts, calls, tokens])


def _energy(run: "ExampleRun", used: "QueryEnergy") -> str:
    before = f"{used.reused_j:.3g} in the run that it went on from, " if used.reused_j else ""
    return (
        f"{used.joules:.3g} J: {before}{used.llm_j:.3g} while the model worked, "
        f"{used.tool_j:.3g} while tools did ({run.energy.source})"
    )


def _count(tokens: int | None) -> str:
    return "unknown" if tokens is None else f"{tokens:,}"


def _rounds(
    study: "LoadedStudy", run: "ExampleRun", used: "QueryEnergy | None"
) -> "Iterator[tuple[str | None, list[int]]]":
    """Places of spans by the round in which they ended, as checkpoints tell; without checkpoints, all under no title."""
    start, before_s = 0, 0.0
    for number, checkpoint in enumerate(run.checkpoints):
        known = None if used is None else used.checkpoints_j[number]
        so_far = f", {known:.3g} J so far" if known is not None else ""
        answer = "not known" if checkpoint.answer is None else repr(checkpoint.answer)
        title = (
            f"round {checkpoint.budget}: {checkpoint.elapsed_s - before_s:.2f} s{so_far}; "
            f"ended here it would answer {answer}"
        )
        yield title, list(range(start, checkpoint.span_count))
        start, before_s = checkpoint.span_count, checkpoint.elapsed_s
    if start < len(run.spans):
        yield "after the last round" if run.checkpoints else None, list(range(start, len(run.spans)))  # fmt: skip


def _at_once(run: "ExampleRun", ordered: Sequence[int]) -> Iterator[list[int]]:
    """Spans that overlap, together; in the order of their starts."""
    group: list[int] = []
    reach = 0.0
    for place in ordered:
        span = run.spans[place]
        if group and span.start_s >= reach:
            yield group
            group = []
        group.append(place)
        reach = max(reach, span.end_s) if len(group) > 1 else span.end_s
    if group:
        yield group


def _overlap(spans: "Sequence[Span]") -> str:
    from workflows.trace import union_s

    together = union_s([(span.start_s, span.end_s) for span in spans])
    alone = sum(span.end_s - span.start_s for span in spans)
    return f"{len(spans)} calls at once: {together:.2f} s, one after another {alone:.2f} s"


def _call(span: "Span", joules: float | None) -> "Text":
    from rich.text import Text

    from tuner.cli.output import plain

    text = Text(f"{span.kind} {plain(span.name)}", style="bold" if span.kind == "llm" else "yellow")
    facts = [f"{span.end_s - span.start_s:.3f} s from {span.start_s:.3f} s"]
    if span.ttft_s is not None:
        facts.append(f"first token after {span.ttft_s:.3f} s")
    if span.kind == "llm":
        facts.append(
            f"{_count(span.tokens_in)} tokens in ({_count(span.tokens_cached)} cached), {_count(span.tokens_out)} out"
        )
    if joules is not None:
        facts.append(f"{joules:.3g} J")
    if span.attempt > 1:
        facts.append(f"try {span.attempt}")
    if span.speculative:
        facts.append("on a guess")
    return text.append(f"  {', '.join(facts)}", style="dim not bold")


def _say(node: "Tree", mark: str, said: str, style: str, *, full: bool, last: bool = False) -> None:
    """What was asked or answered, its first lines or, of a prompt, its last: the rest is counted."""
    from rich.text import Text

    from tuner.cli.output import plain

    lines = plain(said).strip("\n").split("\n") if said.strip() else []
    cut = 0 if full else len(lines) - LINES
    if cut > 0:
        note = f"… {cut} lines more; --full shows them"
        lines = [note, *lines[-LINES:]] if last else [*lines[:LINES], note]
    if lines:
        node.add(Text("\n".join(f"{mark} {line}" for line in lines), style=style))
