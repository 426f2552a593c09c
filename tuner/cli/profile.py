"""`tuner profile`: what each workflow of a study costs, as the tables and figures of a paper on the cost of agents."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Annotated

import typer

from tuner.cli.arguments import AsJson
from tuner.cli.arguments import StudyPath

if TYPE_CHECKING:
    from tuner.profile import Profile
    from tuner.profile.beside import Comparison
    from tuner.profile.pairing import Pair
    from tuner.profile.table import Table


def profile(
    study: StudyPath,
    compare: Annotated[
        str | None,
        typer.Option(metavar="PAPER", help="Put a paper's figures beside them: kim2025."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write profile.json, profile.csv and profile.html there."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure each workflow of a study at its configs, and show calls, time, tokens, caching, scaling and energy.

    What was measured before is kept: the same command goes on where it stopped, and once all is
    measured it shows the results at once.
    """
    from tuner.cli.output import print_json
    from tuner.cli.output import talk
    from tuner.cli.progress import open_progress
    from tuner.profile import as_profile
    from tuner.profile import is_measured
    from tuner.profile import profile_study
    from tuner.profile.files import content
    from tuner.profile.plan import make_plan
    from tuner.published import load_paper
    from tuner.spec import load_study

    if compare is not None:
        load_paper(compare)
    if out is not None:
        _require_folder(out)
    loaded = load_study(study)
    plan = make_plan(loaded.space, loaded.models)
    talk(f"study {loaded.spec.name}: {study}: {plan.rule()}")
    if is_measured(loaded):
        found = profile_study(loaded)
    else:
        with open_progress(as_profile(loaded, len(plan.configs))) as report:
            found = profile_study(loaded, report=report)
    comparison = None
    if compare is not None:
        from tuner.profile.beside import compare as put_beside

        comparison = put_beside(found, compare)
    if as_json:
        print_json(content(found, comparison))
    else:
        _print(found, comparison)
    if out is not None:
        for path in _write(found, out, comparison):
            talk(f"written: {path}")


def _require_folder(out: Path) -> None:
    """Raise UserError now for what would stop the results from being written in the end."""
    from tuner.errors import UserError
    from tuner.profile.page import require_plots

    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file", hint="name a folder; it is made if need be")
    require_plots()


def _write(found: "Profile", out: Path, comparison: "Comparison | None") -> list[Path]:
    from tuner.profile.files import write
    from tuner.profile.page import write_page

    return [*write(found, out, comparison), write_page(found, out / "profile.html", comparison)]


def _print(found: "Profile", comparison: "Comparison | None") -> None:
    for table in found.tables:
        _print_table(table)
    if comparison is not None:
        _print_comparison(found, comparison)


def _print_table(table: "Table") -> None:
    from tuner.profile import text

    print(f"{table.name}: {table.title}")
    if table.rows:
        sourced = any(row.source is not None for row in table.rows)
        _print_columns(
            ["config", *table.keys],
            [
                *(text.header(column) for column in table.columns),
                f"n\n{table.counts}",
                *(["source"] if sourced else []),
            ],
            [
                [
                    text.config(row),
                    *(text.key(row.keys[name]) for name in table.keys),
                    *(text.estimate(row.values[c.name], c.unit) for c in table.columns),
                    str(row.n),
                    *([row.source or "–"] if sourced else []),
                ]
                for row in table.rows
            ],
        )
    for line in (*table.notes, *text.reasons(table)):
        print(f"  {line}")
    print()


def _print_comparison(found: "Profile", comparison: "Comparison") -> None:
    task = "" if comparison.task == found.task else f" (this study's task is {found.task})"
    print(f"Beside {comparison.title}, {comparison.source}: its {comparison.task}{task}")
    print(f"  {comparison.note}")
    print(
        "  Cells are: here, paper, here ÷ paper. Here each workflow stands with the centre of its space:"
    )
    for each in found.shown.values():
        print(f"    {each.label}")
    print()
    for table in found.tables:
        _print_pairs(
            f"{table.name} beside the paper's: {table.title}", comparison.figures[table.figure]
        )
    _print_pairs("Beside the paper's ratios", comparison.ratios)


def _print_pairs(title: str, pairs: "Sequence[Pair]") -> None:
    from tuner.profile import text
    from tuner.profile.beside import columns
    from tuner.profile.beside import lines

    if not pairs:
        print(f"{title}: the paper has no numbers that could be read\n")
        return
    print(title)
    listed = lines(pairs)
    names = list(dict.fromkeys(name for line in listed for name in line.keys))
    quantities = columns(pairs)
    _print_columns(
        ["workflow", *names],
        [text.header(column) for column in quantities],
        [
            [
                line.workflow,
                *(text.key(line.keys[name]) if name in line.keys else "" for name in names),
                *(
                    text.pair(line.pairs[column.name]) if column.name in line.pairs else ""
                    for column in quantities
                ),
            ]
            for line in listed
        ],
    )
    print()


CONFIG_WIDTH = 26
"""Characters into which a config's name is broken where columns are many."""

GAP = 3
"""Characters between columns."""


def _print_columns(
    keys: "Sequence[str]", columns: "Sequence[str]", rows: "Sequence[Sequence[str]]"
) -> None:
    """A table in as many parts as it takes for each to fit: the keys, then as many of the columns as there is room for."""
    from tuner.cli.output import print_table
    from tuner.cli.output import width

    table = [[*keys, *columns], *rows]
    widths = [
        max(len(line) for row in table for line in row[index].splitlines() or [""])
        for index in range(len(table[0]))
    ]
    first = len(keys)
    if keys[0] == "config":
        widths[0] = min(widths[0], CONFIG_WIDTH)
    room = width() - sum(each + GAP for each in widths[:first])
    start = first
    while start < len(widths):
        end, used = start + 1, widths[start] + GAP
        while end < len(widths) and used + widths[end] + GAP <= room:
            used += widths[end] + GAP
            end += 1
        shown = [*range(first), *range(start, end)]
        print_table(
            "",
            [table[0][index] for index in shown],
            [[row[index] for index in shown] for row in rows],
        )
        start = end
