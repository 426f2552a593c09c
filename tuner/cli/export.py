"""`tuner export`: recommended configurations as files that run, or their models for LiteLLM's proxy."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Annotated

import typer

from tuner.cli.arguments import StudyPath
from tuner.cli.completion import complete_rule

if TYPE_CHECKING:
    from tuner.results import Point
    from tuner.rules import Rule
    from tuner.spec import LoadedStudy
    from tuner.store import Store


class Format(StrEnum):
    """What is written."""

    AGENT = "agent"
    LITELLM_PROXY = "litellm-proxy"


def export(
    study: StudyPath,
    rule: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            autocompletion=complete_rule,
            help="knee (default), max-accuracy, min-energy, min-latency, cheapest-within:0.02, "
            "slo:latency_p95_s<=5,accuracy>=0.6 or weights:accuracy=2,energy_wh=1.",
        ),
    ] = None,
    every: Annotated[
        bool,
        typer.Option("--all", help="Every point of the front, a file each, into the folder --out."),
    ] = False,
    form: Annotated[
        Format,
        typer.Option(
            "--format", help="agent: a file that runs; litellm-proxy: its models for that proxy."
        ),
    ] = Format.AGENT,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where to write: best.yaml, litellm.yaml or the folder front, if not said.",
        ),
    ] = None,
) -> None:
    """Write the configuration that a rule recommends, with all that it needs to run."""
    from tuner.errors import UserError
    from tuner.results import open_results
    from tuner.rules import Rule
    from tuner.spec import load_study

    if every and rule is not None:
        raise UserError(
            f"--all writes every point of the front, and --rule {rule} chooses one",
            hint="leave one of them out; --all says which points the rules recommend",
        )
    if every and form is not Format.AGENT:
        raise UserError(
            f"--all writes agents, which may share their models, and --format {form} a list of models",
            hint="leave one of them out",
        )
    chosen_by = Rule.parse(rule or "knee")
    loaded = load_study(study)
    store = open_results(loaded)
    if every:
        _export_all(loaded, store, Path("front") if out is None else out)
    elif form is Format.AGENT:
        _export(loaded, store, chosen_by, Path("best.yaml") if out is None else out)
    else:
        _export_models(loaded, store, chosen_by, Path("litellm.yaml") if out is None else out)


def _export(study: "LoadedStudy", store: "Store", rule: "Rule", out: Path) -> None:
    from tuner import export as exporting
    from tuner.cli.output import command
    from tuner.cli.output import talk
    from workflows.agent import own_code

    choice = exporting.export(study, store, rule=rule, out=out)
    _say(study, choice.point, f"{rule.text}: {choice.why}")
    print(out)
    first = study.load_task().examples(choice.point.split)[0]
    config = choice.point.trial.config
    allowed = " --allow-custom" if config is not None and own_code(config) else ""
    talk(f'next: {command()} ask{allowed} {out} "{first.question}"')


def _export_models(study: "LoadedStudy", store: "Store", rule: "Rule", out: Path) -> None:
    from tuner import export as exporting
    from tuner.cli.output import talk
    from tuner.proxy import dump_proxy_config

    choice, agent = exporting.chosen(study, store, rule=rule, out=out)
    dump_proxy_config(agent, out)
    _say(study, choice.point, f"{rule.text}: {choice.why}")
    print(out)
    talk(f"next: litellm --config {out}")


def _export_all(study: "LoadedStudy", store: "Store", folder: Path) -> None:
    from tuner import export as exporting
    from tuner.cli.output import command
    from tuner.cli.output import summary
    from tuner.cli.output import talk

    exported = exporting.export_all(study, store, folder=folder)
    for each in exported:
        config = each.point.trial.config
        by = f"   ← {', '.join(each.recommended_by)}" if each.recommended_by else ""
        talk(f"{each.path.name}: {summary(study, config) if config else ''}{by}")
        print(each.path)
    best = next((each for each in exported if "knee" in each.recommended_by), exported[0])
    talk(f"next: {command()} serve {best.path}")


def _say(study: "LoadedStudy", point: "Point", why: str) -> None:
    from tuner.cli.output import summary
    from tuner.cli.output import talk
    from tuner.cli.output import with_interval

    figures = ", ".join(f"{name} {with_interval(point, name)}" for name in study.spec.objectives)
    talk(why)
    talk(
        f"trial {point.trial.number}: {summary(study, point.trial.config) if point.trial.config else ''}"
    )
    talk(f"measured on {point.n} {point.split} questions: {figures}")
