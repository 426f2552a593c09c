"""A report as one HTML file that asks for nothing beyond itself; the only importer of Jinja here.

Apart from `read_report`, which knows no markup. Everything that was written by a model, a dataset or a server comes
into the page in one of two ways: escaped by Jinja, or as JSON that the page's script puts into text nodes. The page's own style and
script are named by their digests in its content security policy, so that nothing else could run or be fetched.
"""

import base64
import hashlib
import json
import math
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tuner.errors import UserError
from tuner.objectives import OBJECTIVES
from tuner.report import DEFAULT_RULE
from tuner.report import Report
from tuner.report import Shown
from tuner.report import text
from tuner.report.conditions import is_replayed
from tuner.report.runs import Block
from tuner.report.runs import TrialRuns
from tuner.report.runs import deflated
from tuner.report.runs import make_blocks
from tuner.store import Store
from tuner.tasks import SPLITS

SCRIPTS = ("elements.js", "points.js", "plots.js", "panel.js", "page.js")
"""One module of the page, in this order."""

PAGE_BYTES = 5_000_000
"""Of the whole file at most."""

QUESTION_CHARS = 2000
"""Of a question or its answer at most; less where all of them would take more than QUESTIONS_SHARE of the page."""

QUESTIONS_SHARE = 0.2

CONFIG_CHARS = 200
"""Of a label or a knob's value at most."""


def require_jinja() -> None:
    """Raise UserError, saying what to install, where a page could not be made."""
    if find_spec("jinja2") is None:
        raise UserError(
            "a report is a page, which needs jinja2", hint="pip install 'tuner[report]'"
        )


def write_page(report: Report, store: Store, path: Path) -> tuple[Block, ...]:
    """The page at that path, PAGE_BYTES long at most; gives what it carries of runs.

    Its folder is made if need be. Raises UserError where the file cannot be written, or Jinja is missing.
    """
    require_jinja()
    fixed = len(_render(report, ()))
    blocks = _blocks(report, store, PAGE_BYTES - fixed)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_render(report, blocks))
    except OSError as error:
        raise UserError(
            f"--out: {path} cannot be written: {error.strerror}",
            hint="name a place in a folder that exists and may be written to",
        ) from None
    return blocks


_ELEMENT_BYTES = 120
"""Of the element around a block, with its line in the data, at most."""


def _blocks(report: Report, store: Store, room: int) -> tuple[Block, ...]:
    trials = {shown.point.trial.number: shown.point.trial for shown in report.shown}

    def read(number: int) -> TrialRuns:
        trial_id = trials[number].trial_id
        return TrialRuns(
            {split: store.runs(trial_id, split) for split in SPLITS},
            {split: store.extras(trial_id, split) for split in SPLITS},
        )

    first = _worth_reading(report)
    others = [shown for shown in report.shown if shown.point.trial.number not in first]
    others.sort(key=lambda shown: (shown.kind != "infeasible", -shown.point.membership))
    return make_blocks(
        read,
        first=first,
        others=[shown.point.trial.number for shown in others],
        most_bytes=max(0, room - _ELEMENT_BYTES * len(trials)),
    )


def _worth_reading(report: Report) -> list[int]:
    """Trials whose runs are told in full as far as there is room: what is recommended, then confirmed, the front, near it."""
    chosen = [advice.choice for advice in report.advice if advice.choice is not None]
    points = [
        *(choice.point for choice in chosen),
        *(choice.runner_up for choice in chosen if choice.runner_up is not None),
        *(s.point for kind in ("holdout", "front", "near") for s in report.shown if s.kind == kind),
    ]
    return list(dict.fromkeys(point.trial.number for point in points))


def _render(report: Report, blocks: tuple[Block, ...]) -> bytes:
    from jinja2 import Environment
    from jinja2 import StrictUndefined

    here = Path(__file__).parent
    style, source, *scripts = (
        (here / name).read_text(encoding="utf-8") for name in ("page.css", "page.html.j2", *SCRIPTS)
    )
    script = "\n".join(scripts)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["capitalize_first"] = lambda words: words[:1].upper() + words[1:]
    page = environment.from_string(source).render(
        report=report,
        study=report.study,
        text=text,
        objectives=OBJECTIVES,
        default_rule=DEFAULT_RULE,
        replayed=is_replayed(report.conditions),
        by_kind=_by_kind(report),
        data=safe_json(_content(report, blocks)),
        blocks=blocks,
        version=version("tuner"),
        style=style,
        script=script,
        policy=_policy(style, script),
    )
    # A lone surrogate, which a model may write and UTF-8 has no bytes for, becomes a question mark.
    return page.encode("utf-8", "replace")


def _by_kind(report: Report) -> dict[str, list[Shown]]:
    """The points that stand in tables of their own, in the order in which `Front` has them."""
    found = report.front
    order = [point.trial.number for point in (*found.search, *found.near, *found.infeasible)]
    return {
        kind: sorted(
            (shown for shown in report.shown if shown.kind == kind),
            key=lambda shown: (
                order.index(shown.point.trial.number)
                if kind != "holdout" and shown.point.trial.number in order
                else len(order)
            ),
        )
        for kind in ("front", "near", "holdout", "infeasible")
    }


def _policy(style: str, script: str) -> str:
    """What the page may do: use its own style and script, and nothing else."""
    digests = [
        base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()
        for each in (style, script)
    ]
    return (
        f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def safe_json(content: Any) -> str:
    """JSON that may stand within a script element: in ASCII, and without a character that could end it."""
    drawn = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return drawn.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _content(report: Report, blocks: tuple[Block, ...]) -> dict[str, Any]:
    """What the page's script draws from."""
    recommended = report.recommended
    return {
        "study": report.study.spec.name,
        "path": str(report.study.path),
        "objectives": [
            {
                "name": name,
                "title": text.TITLES[name],
                "unit": text.unit(name),
                "up": OBJECTIVES[name].direction == "maximize",
            }
            for name in report.front.objectives
        ],
        "recommended": None
        if recommended is None
        else {
            "trial": recommended.point.trial.number,
            "split": recommended.point.split,
            "rule": DEFAULT_RULE,
        },
        "points": [_point(report, shown) for shown in report.shown],
        "trials": _trials(report),
        "effects": [_effects(each) for each in report.effects],
        "blocks": {str(block.trial): [block.detail, block.told] for block in blocks},
        "replayed": is_replayed(report.conditions),
        "questions": _questions(report),
        "no_questions": report.no_task,
    }


def _point(report: Report, shown: Shown) -> dict[str, Any]:
    point, trial = shown.point, shown.point.trial
    names = report.front.objectives
    scales = [100.0 if OBJECTIVES[name].unit == "share" else 1.0 for name in names]
    flags = {
        "derived": trial.derived_from is not None,
        "reused": trial.reused_from is not None,
        "oracle": trial.config is not None and trial.config.oracle,
        "failed": shown.failed > 0,
    }
    return {
        "trial": trial.number,
        "split": point.split,
        "kind": shown.kind,
        "flags": [flag for flag, is_so in flags.items() if is_so],
        "values": [_digits(s * point.values[n]) for n, s in zip(names, scales, strict=True)],
        "low": [_digits(s * point.intervals[n][0]) for n, s in zip(names, scales, strict=True)],
        "high": [_digits(s * point.intervals[n][1]) for n, s in zip(names, scales, strict=True)],
        "shown": {n: text.spelled(n, point.values[n], point.intervals[n]) for n in point.values},
        "membership": shown.membership,
        "on_front": point.on_front,
        "n": point.n,
        "group": point.group,
        "failed": shown.failed,
        "excess": {
            n: text.figure(n, over) + " " + text.unit(n) for n, over in point.excess.items()
        },
        "drop": {n: text.spelled(n, drop.value, drop.interval) for n, drop in point.drop.items()},
    }


def _trials(report: Report) -> dict[str, Any]:
    found = {}
    for shown in report.shown:
        trial = shown.point.trial
        notes = []
        if trial.derived_from is not None:
            notes.append(
                f"Derived from the checkpoints of trial {trial.derived_from}: what that run would have answered with a smaller budget."
            )
        if trial.reused_from is not None:
            notes.append(
                f"Taken over from {trial.reused_from}: nothing was run for it in this study."
            )
        if trial.stopped is not None:
            notes.append(
                f"Stopped early: {trial.stopped}. Its figures are those of the questions seen."
            )
        if trial.config is not None and trial.config.oracle:
            notes.append(
                "Told when its answers were right (oracle), which nobody can do in deployment: it is never recommended."
            )
        config = trial.config
        varied = {} if config is None else report.study.knobs(config)
        found[str(trial.number)] = {
            "label": _short(shown.label),
            "config": []
            if config is None
            else [
                ["workflow", config.workflow, True],
                ["model", config.model, len(report.study.variants) > 1],
                *(
                    [name, _short(_written(value)), name in varied]
                    for name, value in config.params.items()
                ),
            ],
            "notes": notes,
            "source": trial.sources.get("energy"),
        }
    return found


def _effects(each: Any) -> dict[str, Any]:
    scale = (
        100.0 if each.scale == "difference" and OBJECTIVES[each.objective].unit == "share" else 1.0
    )
    return {
        "objective": each.objective,
        "scale": each.scale,
        "knobs": [
            {
                "knob": knob.knob,
                "importance": knob.importance,
                "values": [
                    {
                        "value": _short(_written(effect.value)),
                        "effect": _digits(scale * effect.effect),
                        "low": _digits(scale * effect.interval[0]),
                        "high": _digits(scale * effect.interval[1]),
                        "configs": effect.configs,
                    }
                    for effect in knob.values
                ],
            }
            for knob in each.knobs
        ],
    }


def _questions(report: Report) -> str | None:
    """Questions and their right answers, packed; None where they are not known."""
    if report.task is None:
        return None
    chars = QUESTION_CHARS
    while True:
        packed = deflated(
            {
                split: {
                    example.id: [
                        _short(example.question, chars),
                        _short(" | ".join(example.answers[:1]), chars),
                    ]
                    for example in report.task.examples(split)
                }
                for split in SPLITS
            }
        )
        if len(packed) <= QUESTIONS_SHARE * PAGE_BYTES or chars < 20:
            return packed
        chars //= 2


def _digits(value: float) -> float | None:
    """Five significant digits; None for an end that is infinite."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _short(written: str, chars: int = CONFIG_CHARS) -> str:
    return written if len(written) <= chars else f"{written[:chars]}…"
