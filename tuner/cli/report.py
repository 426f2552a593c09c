"""`tuner report`: a study as one HTML page that works without a network, and as plots."""

from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.arguments import StudyPath


def report(
    study: StudyPath,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the page.")] = Path(
        "report.html"
    ),
    plots: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write plots there, as PNG and SVG."),
    ] = None,
) -> None:
    """Write a study as one HTML page: the front, every point and its runs, knobs, cost, and what is recommended and why."""
    from contextlib import closing

    from tuner.cli.output import command
    from tuner.cli.output import talk
    from tuner.report import DEFAULT_RULE
    from tuner.report import read_report
    from tuner.report.page import require_jinja
    from tuner.report.page import write_page
    from tuner.report.plots import require_matplotlib
    from tuner.report.plots import write_plots
    from tuner.results import open_results
    from tuner.spec import load_study

    require_jinja()
    if plots is not None:
        require_matplotlib()
    loaded = load_study(study)
    with closing(open_results(loaded)) as store:
        found = read_report(loaded, store)
        blocks = write_page(found, store, out)
    print(out)
    if plots is not None:
        for path in write_plots(found, plots):
            print(path)
    told = sum(block.detail == "texts" for block in blocks)
    timed = sum(block.detail != "rows" for block in blocks)
    talk(
        f"{out.stat().st_size / 1e6:.2f} MB: {len(found.shown)} points, the answers of {len(blocks)} trials, "
        f"{timed} of them with timelines and {told} with transcripts"
    )
    if found.unfinished:
        talk(found.unfinished)
    if not found.front.confirmed:
        talk(found.holdout[0])
    if found.recommended is None:
        talk(f"next: open {out} in a browser")
    else:
        talk(
            f"next: open {out} in a browser; {command()} export {study} --rule {DEFAULT_RULE} --out best.yaml "
            f"writes trial {found.recommended.point.trial.number}"
        )
