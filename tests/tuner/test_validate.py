"""The holdout pass by itself, against a server on loopback and on studies whose results are given."""

from collections.abc import Callable

import pytest

from tuner.errors import ServingError
from tuner.errors import StoreError
from tuner.errors import UserError
from tuner.events import PassStarted
from tuner.events import StudyEnded
from tuner.results import Front
from tuner.spec import LoadedStudy
from tuner.spec import load_study
from tuner.study import run_study
from tuner.validate import validate_study

MakeStudy = Callable[..., LoadedStudy]

GOOD = [(1, 2, 8), (1, 3, 8), (1, 2, 9), (1, 4, 8)]
POOR = [(0, 1, 4), (0, 2, 4), (0, 1, 5), (0, 1, 4)]


def search_only(study: LoadedStudy) -> None:
    """Run a study, and leave as Ctrl-C does before its holdout pass."""

    def leave(event: object) -> None:
        if isinstance(event, StudyEnded):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(study, report=leave)
    assert Front.read(study).confirmed == ()


@pytest.mark.slow
def test_what_a_search_left_unconfirmed_is_confirmed_once(make_study: MakeStudy, serve) -> None:
    events: list[object] = []
    with serve() as address:
        study = make_study(trials=3, server=address)
        search_only(study)
        found = validate_study(study, report=events.append)
        unlucky = make_study(folder="unlucky", trials=1, server=address)
        search_only(unlucky)
    passes = [event for event in events if isinstance(event, PassStarted)]
    assert {event.split for event in passes} == {"holdout"}
    measured = {point.trial.number for point in found.front.confirmed}
    assert measured == {event.trial for event in passes}
    assert measured == {point.trial.number for point in found.front.candidates}
    assert all(point.n == 6 and point.drop for point in found.front.confirmed)
    assert (found.unconfirmed, found.oracle) == ((), ())
    assert (
        validate_study(study) == found
    )  # nothing is left to be asked of the server, which is gone
    with pytest.raises(ServingError, match="nothing answers"):
        validate_study(unlucky)


def test_a_config_that_the_search_flattered_is_named(keep, found) -> None:
    study = keep(
        found("react", {"max_steps": 1}, search=GOOD, holdout=POOR),
        found("react", {"max_steps": 2}, search=POOR, holdout=POOR),
    )
    said = " ".join(validate_study(study).sentences())
    assert said.startswith("2 of 2 configs confirmed are on the holdout front.")
    assert "1 of 6 figures is worse than in the search by more than chance explains" in said
    assert "accuracy of trial 0 (chance alone does that to 0.15)" in said


def test_figures_that_hold_are_said_to(keep, found) -> None:
    study = keep(
        found("react", {"max_steps": 1}, search=GOOD, holdout=GOOD),
        found("react", {"max_steps": 2}, search=POOR, holdout=POOR),
    )
    assert validate_study(study).sentences() == [
        "2 of 2 configs confirmed are on the holdout front.",
        "No figure is worse than in the search by more than chance explains.",
    ]


def test_oracle_configs_are_left_out_and_named(keep, found) -> None:
    told = found("reflexion", {"feedback": "oracle"}, search=GOOD, holdout=GOOD)
    study = keep(found("direct", {}, search=POOR, holdout=POOR), told)
    validation = validate_study(study)
    assert [point.trial.number for point in validation.front.confirmed] == [0]
    assert validation.oracle == (1,)
    assert validation.sentences()[-1] == (
        "Not confirmed, because they were told when they were right, which nobody can do in deployment: 1."
    )


def test_a_study_of_oracle_configs_alone_has_nothing_to_confirm(keep, found) -> None:
    study = keep(found("reflexion", {"feedback": "oracle"}, search=GOOD))
    with pytest.raises(UserError, match="told when its answer was right") as refused:
        validate_study(study)
    assert refused.value.hint is not None
    assert "feedback: [self]" in refused.value.hint


def test_what_cannot_be_confirmed_is_refused_with_what_to_do(keep, found, tmp_path) -> None:
    keep(found("direct", {}, search=GOOD[:2], failure="it fell"))
    file = tmp_path / "study.yaml"
    with pytest.raises(UserError, match="nothing to confirm: no trial is complete") as refused:
        validate_study(load_study(file))
    assert refused.value.hint == "tuner status shows how far the study is"
    text = file.read_text()
    file.write_text(text.replace("holdout: 4", "holdout: 0"))
    with pytest.raises(UserError, match=r"study.yaml: task: holdout: is 0") as refused:
        validate_study(load_study(file))
    assert refused.value.hint is not None
    assert "warm_start: [kept]" in refused.value.hint
    file.write_text(text.replace("name: kept", "name: never_run", 1))
    with pytest.raises(StoreError, match="holds no study named 'never_run'"):
        validate_study(load_study(file))
