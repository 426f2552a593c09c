"""`tuner run`: runs a study, or goes on with it."""

from tuner.cli.arguments import StudyPath


def run(study: StudyPath) -> None:
    """Run or resume a study, then confirm its front on the holdout questions."""
    from tuner.cli.front import print_front
    from tuner.cli.output import command
    from tuner.cli.output import talk
    from tuner.cli.progress import open_progress
    from tuner.results import open_results
    from tuner.spec import load_study

    loaded = load_study(study)
    talk(f"study {loaded.spec.name}: {study}")
    with open_progress(loaded) as report:
        from tuner.study import (
            run_study,  # seconds of import, under way while the line above is read
        )

        run_study(loaded, report=report)
    print_front(loaded, open_results(loaded))
    talk(f"next: {command()} export {study} --rule knee --out best.yaml")
