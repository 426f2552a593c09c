"""`tuner logs`: what a service has heard of a study, in lines for people or for programs."""

import json
from typing import Annotated
from typing import Any

import typer

from tuner.cli.arguments import SubmittedName


def logs(
    study: SubmittedName,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until the study ends, also over a restart.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Every event as a line of JSON, as tuner run --json has them."),
    ] = False,
) -> None:
    """Show what happened to a study of the service at TUNER_SERVICE."""
    from tuner.cli.arguments import submitted_name
    from tuner.service.client import Client

    with Client() as client:
        for event in client.events(submitted_name(study), follow=follow):
            line = json.dumps(event, ensure_ascii=False) if as_json else _line(event)
            if line is not None:
                print(line, flush=True)


def _line(event: dict[str, Any]) -> str | None:
    """An event for people; None for what only programs count."""
    text = _text(event)
    return None if text is None else f"{event['time'][:19].replace('T', ' ')} {text}"


def _text(event: dict[str, Any]) -> str | None:
    match event["event"]:
        case "state":
            reason = event["reason"]
            return f"{event['state']}: {reason}" if reason else str(event["state"])
        case "message":
            return str(event["text"])
        case "trial_ended":
            return _ended(event)
        case "search_ended":
            return f"search ended: {event['reason']}"
        case "verified":
            return f"verification {event['verification']}: {event['outcome']}"
        case "result":
            chosen = event["recommended"]
            return "nothing is recommended" if chosen is None else f"recommended: {chosen['why']}"
    return None


def _ended(event: dict[str, Any]) -> str:
    from tuner.cli.output import quantity

    begins = f"trial {event['trial']}: {event['label'] or ''}"
    if event["failure"] is not None:
        return f"{begins} failed: {event['failure']}"
    figures = ", ".join(
        f"{name} {quantity(name, value)}" for name, value in event["values"].items()
    )
    stopped = f" (stopped: {event['stopped']})" if event["stopped"] is not None else ""
    return f"{begins}: {figures}{stopped}"
