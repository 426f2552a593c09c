"""`tuner trace`: one agent run, span by span."""

from typing import Annotated

import typer

from tuner.cli.arguments import AsJson
from tuner.cli.arguments import StudyPath
from tuner.cli.show import TrialNumber


def trace(
    study: StudyPath,
    trial: TrialNumber,
    example: Annotated[str, typer.Argument(metavar="EXAMPLE", help="Id of the example.")],
    as_json: AsJson = False,
) -> None:
    """Show one agent run: every call with its time, tokens, and what was said."""
    from dataclasses import asdict

    from tuner.cli.output import print_json
    from tuner.cli.show import find_trial
    from tuner.errors import UserError
    from tuner.measure.attribution import attribute_all
    from tuner.results import open_results
    from tuner.spec import load_study

    loaded = load_study(study)
    store = open_results(loaded)
    found = find_trial(store, trial)
    splits = [store.runs(found.trial_id, split) for split in ("search", "holdout")]
    runs = [run for split in splits for run in split]
    chosen = [run for run in runs if run.example_id == example]
    if not chosen:
        raise UserError(
            f"trial {trial} has no example {example!r}; it has: "
            f"{', '.join(run.example_id for run in runs) or 'none'}"
        )
    if as_json:
        print_json([asdict(run) for run in chosen])
        return
    # Windows are numbered within a split, and what a question used shows in the whole of its window.
    windows = [
        [*of_split, *store.extras(found.trial_id, split)]
        for split, of_split in zip(("search", "holdout"), splits, strict=True)
    ]
    used = {key: own for runs in windows for key, own in attribute_all(runs).items()}
    for run in chosen:
        told = ", told when it was right (oracle)" if run.oracle else ""
        print(f"example {run.example_id}: answer {run.answer!r}, score {run.score:g}{told}")
        if run.error is not None:
            print(f"failed: {run.error}")
        shown = ""
        for span in run.spans:
            tokens = (
                f", {span.tokens_in} tokens in ({span.tokens_cached} cached), {span.tokens_out} out"
                if span.kind == "llm"
                else ""
            )
            print(
                f"\n{span.start_s:8.3f} s  {span.kind} {span.name}, {span.end_s - span.start_s:.3f} s"
                f"{tokens}{', on a guess' if span.speculative else ''}"
            )
            # A prompt usually goes on where the one before ended: only what is new is worth reading.
            new = span.input.removeprefix(shown) if shown else span.input
            print(_indented(new, "> "))
            print(
                _indented(
                    span.output if span.error is None else f"{span.output} [{span.error}]", "< "
                )
            )
            if span.kind == "llm":
                shown = span.input
        own = used.get((run.example_id, run.repeat))
        for number, checkpoint in enumerate(run.checkpoints):
            answer = "unknown" if checkpoint.answer is None else repr(checkpoint.answer)
            known = None if own is None else own.checkpoints_j[number]
            joules = "" if known is None else f", {known:.3g} J"
            print(
                f"\ncheckpoint {checkpoint.budget} at {checkpoint.elapsed_s:.3f} s{joules}: {answer}"
            )
        if own is not None:
            before = f"{own.reused_j:.3g} in the run that it went on from, " if own.reused_j else ""
            print(
                f"\n{own.joules:.3g} J: {before}{own.llm_j:.3g} while the model worked, "
                f"{own.tool_j:.3g} while tools did ({run.energy.source})"
            )


def _indented(text: str, mark: str) -> str:
    return "\n".join(f"            {mark}{line}" for line in text.strip("\n").split("\n"))
