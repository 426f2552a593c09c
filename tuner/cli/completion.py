"""What the shell offers for arguments: study files, numbers of trials, ids of examples, names of rules.

Apart from the verbs, because it answers while somebody waits with a finger on the tab key: only the standard library and YAML are
imported, where a verb takes a second for SQLAlchemy and pydantic. Whatever cannot be read offers nothing.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

MOST_FILES = 200
"""Files that are looked into at most."""

RULE_FORMS = (
    "knee",
    "max-accuracy",
    "min-energy",
    "min-latency",
    "cheapest-within:0.02",
    "slo:latency_p95_s<=5,accuracy>=0.6",
    "weights:accuracy=2,energy_wh=1",
)
"""As RULES has them, whose module takes a second to import; a test holds the two together."""

LARGEST_STUDY = 1_000_000
"""Characters of a study file that are looked at."""

_TRIALS = """
SELECT trials.number, tuner_trials.config, trials.state FROM trials
JOIN studies ON studies.study_id = trials.study_id
LEFT JOIN tuner_trials ON tuner_trials.trial_id = trials.trial_id
WHERE studies.study_name = :study ORDER BY trials.number
"""
_EXAMPLES = """
SELECT DISTINCT tuner_example_runs.example_id, tuner_example_runs.split FROM tuner_example_runs
JOIN trials ON trials.trial_id = tuner_example_runs.trial_id
JOIN studies ON studies.study_id = trials.study_id
WHERE studies.study_name = :study AND trials.number = :number AND tuner_example_runs.split <> 'edge'
ORDER BY tuner_example_runs.run_id
"""


def complete_study(incomplete: str) -> list[str]:
    """Study files whose paths begin so, in this folder and two below; folders where there are none."""
    beginning = Path(incomplete)
    folder = beginning if incomplete.endswith("/") else beginning.parent
    found = [path for path in _files(folder) if str(path).startswith(incomplete)]
    studies = [str(path) for path in found[:MOST_FILES] if _is_study(path)]
    return studies or [f"{path}/" for path in _folders(folder) if str(path).startswith(incomplete)]


def complete_trial(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Numbers of the study's trials, each with its workflow and state."""
    found = []
    for number, config, state in _rows(ctx.params.get("study"), _TRIALS):
        workflow = re.search(r'"workflow": ?"([^"]+)"', config or "")
        what = f"{workflow[1]}, {state.lower()}" if workflow else state.lower()
        if str(number).startswith(incomplete):
            found.append((str(number), what))
    return found


def complete_example(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Ids of the examples that the trial has answered, each with its split."""
    number = ctx.params.get("trial")
    rows = _rows(ctx.params.get("study"), _EXAMPLES, number=number)
    return [(example, split) for example, split in rows if example.startswith(incomplete)]


def complete_rule(incomplete: str) -> list[str]:
    """Rules, those that take an argument with one."""
    return [form for form in RULE_FORMS if form.startswith(incomplete)]


def complete_other(ctx: typer.Context, incomplete: str) -> list[str]:
    """Trials of the study, or other studies: what it may be compared with."""
    trials = [number for number, _ in complete_trial(ctx, incomplete)]
    return [*trials, *(complete_study(incomplete) if not incomplete.isdecimal() else [])]


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(
            each for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")
        )
    except OSError:
        return []


def _files(folder: Path) -> Iterator[Path]:
    below = _folders(folder)
    for each in (folder, *below, *(deep for one in below for deep in _folders(one))):
        yield from sorted(each.glob("*.y*ml"))


def _is_study(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return re.search(r"^search_space:", text, flags=re.MULTILINE) is not None


def _rows(path: Path | None, query: str, **values: Any) -> list[Any]:
    """What a query on the study's storage gives; nothing where it cannot be asked."""
    import sqlite3

    if path is None:
        return []
    try:
        with Path(path).open(encoding="utf-8") as lines:
            text = lines.read(LARGEST_STUDY)
        name, storage = _value(text, "name"), _value(text, "storage") or "sqlite:///tuner.db"
        if not storage.startswith("sqlite"):
            return _rows_of_server(storage, query, study=name, **values)
        file = Path(path).parent / storage.partition("///")[2].partition("?")[0]
        connection = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)
        try:
            return connection.execute(query, {"study": name, **values}).fetchall()
        finally:
            connection.close()
    except (OSError, ValueError, sqlite3.Error):
        return []


def _value(text: str, key: str) -> str | None:
    """What a study file says under a key of its top level, which takes a line; reading all of it as YAML takes half a second of imports."""
    found = re.search(rf"""^{key}: *["']?([^"'#\n]+?)["']? *(?:#.*)?$""", text, flags=re.MULTILINE)
    return None if found is None else found[1]


def _rows_of_server(url: str, query: str, **values: Any) -> list[Any]:
    import sqlalchemy as sa

    try:
        with sa.create_engine(url).connect() as connection:
            return list(connection.execute(sa.text(query), values))
    except (sa.exc.SQLAlchemyError, ImportError):
        return []
