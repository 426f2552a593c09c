"""`tuner studies`: what a service has, and how far each study is."""

from datetime import UTC
from datetime import datetime
from typing import Any

from tuner.cli.arguments import AsJson

_QUANTITIES = {"energy_wh": "Wh", "gpu_hours": "GPU-h", "cost_usd": "$", "tokens": "tokens"}


def studies(as_json: AsJson = False) -> None:
    """List the studies of the service at TUNER_SERVICE: state, user, trials, what is spent, size of the front, age."""
    from tuner.cli.output import print_json
    from tuner.cli.output import print_table
    from tuner.service.client import Client

    with Client() as client:
        content = client.get("/studies")
    if as_json:
        print_json(content)
        return
    columns = ["study", "state", "user", "priority", "trials", "spent", "front", "age", "why"]
    print_table(
        f"Studies of {client.address}", columns, [_row(each) for each in content], wrap=True
    )


def _row(study: dict[str, Any]) -> list[str]:
    from tuner.cli.output import number

    age_s = (datetime.now(UTC) - datetime.fromisoformat(study["submitted"])).total_seconds()
    return [
        study["name"],
        study["state"],
        study["user"],
        number(study["priority"]),
        _of(study["budget"].get("trials")),
        _spent(study["budget"]),
        str(study["front"]),
        _age(age_s),
        study["reason"],
    ]


def _spent(budget: dict[str, dict[str, float | None]]) -> str:
    """What is spent of the limits that are set, and of time in any case."""
    from tuner.cli.output import number

    units = {"wall_clock_s": "s", "questions": "questions", **_QUANTITIES}
    parts = []
    for name, unit in units.items():
        of = budget.get(name, {})
        spent, limit = of.get("spent"), of.get("limit")
        if spent is not None and (limit is not None or name == "wall_clock_s"):
            parts.append(f"{number(spent)}{'' if limit is None else f' of {number(limit)}'} {unit}")
    return "\n".join(parts)


def _of(budget: dict[str, float | None] | None) -> str:
    """Trials that count, of how many."""
    return "0" if budget is None else f"{budget['spent']:.0f} of {budget['limit']:.0f}"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
