"""What is written for optuna-dashboard: once, where it looks, and without a trace in anything else."""

import json

import optuna
import pytest
from optuna_dashboard import get_note
from optuna_dashboard import save_note

from tuner.dashboard import END
from tuner.dashboard import artifact_folder
from tuner.dashboard import refresh
from tuner.dashboard import refresh_notes
from tuner.results import Front
from tuner.store import Store
from tuner.store.schema import open_optuna_storage
from workflows.config import load_agent_file


@pytest.fixture
def study(keep, found):
    """Trials of every kind."""
    rows = [(1, 2, 12), (0, 3, 12), (1, 3, 13), (1, 2, 12)]
    return keep(
        found("direct", {"few_shot": 2}, search=[(0, 1, 4)] * 4, reused_from="old/7"),
        found("react", {"max_steps": 2}, search=rows, holdout=rows),
        found("react", {"max_steps": 1}, search=rows, derived_from=1),
        found("react", {"max_steps": 3}, search=[(0, 9, 40)] * 4),
        found("react", {"max_steps": 4}, search=[(1, 9, 4)] * 4, feasible=False),
        found("react", {"max_steps": 5}, search=rows[:2], stopped="beaten by trial 1"),
        found("react", {"max_steps": 6}, search=rows[:1], failure="3 of 4 examples | failed"),
        found("reflexion", {"feedback": "oracle"}, search=[(1, 0.5, 1)] * 4),
        extra="constraints: {latency_p95_s: '<= 8'}\n",
    )


@pytest.fixture
def store(study):
    opened = Store.open(study.storage_url, study.spec.name)
    yield opened
    opened.close()


@pytest.fixture
def folder(study):
    folder = artifact_folder(study)
    folder.mkdir()
    return folder


@pytest.fixture
def optuna_study(study):
    storage = open_optuna_storage(study.storage_url)
    yield optuna.load_study(study_name=study.spec.name, storage=storage)
    storage.engine.dispose()


def note_of(optuna_study, number):
    return get_note(optuna.trial.Trial(optuna_study, optuna_study.trials[number]._trial_id))


def attributes(optuna_study):
    return optuna_study._storage.get_study_system_attrs(optuna_study._study_id)


def test_a_note_says_what_a_trial_is_and_what_became_of_it(study, store, folder, optuna_study):
    written = refresh(study, store, folder)
    assert written.notes == 9
    notes = [note_of(optuna_study, number) for number in range(8)]
    assert all(note.rstrip().endswith(END) for note in notes)
    assert "**react max_steps=2** on `m`" in notes[1]
    assert "| max_steps | 2 | calls that choose an action |" in notes[1]
    assert "| | search, 4 questions | holdout, 4 questions |" in notes[1]
    assert "| accuracy | 75 % [30, 95] | 75 % [30, 95] |" in notes[1]
    assert "| energy_wh (Wh/query, cpu-estimate) |" in notes[1]
    assert "On the front of 4 holdout questions; on it in 100 % of resamples" in notes[1]
    assert "Recommended by `knee`: trial 1 " in notes[1]
    assert "Taken over from old/7" in notes[0]
    assert "Derived from the checkpoints of trial 1" in notes[2]
    assert "at least as good in everything" in notes[3]
    assert "Not within the constraints on 4 search questions: latency_p95_s by 1." in notes[4]
    assert "Stopped: beaten by trial 1." in notes[5]
    assert "search, 2 questions" in notes[5]
    assert "Failed: 3 of 4 examples | failed" in notes[6]
    assert "(oracle)" in notes[7]
    assert "Recommended" not in notes[7]  # nobody can tell it in deployment
    whole = get_note(optuna_study)
    assert "8 trials" in whole
    assert "| `max-accuracy` | 1 | react max_steps=2 | the highest accuracy of 1 point |" in whole


def test_writing_again_changes_nothing(study, store, folder, optuna_study):
    first = refresh(study, store, folder)
    assert first.plots == 3
    before = attributes(optuna_study)
    again = refresh(study, store, folder)
    assert (again.notes, again.plots, again.files) == (0, 0, first.files)
    assert attributes(optuna_study) == before
    assert refresh_notes(study, store) == 0


def test_a_stale_note_is_written_anew_and_what_others_wrote_stays(
    study, store, folder, optuna_study
):
    theirs = optuna.trial.Trial(optuna_study, optuna_study.trials[3]._trial_id)
    save_note(theirs, "Look at question 3!")
    refresh(study, store, folder)
    assert note_of(optuna_study, 3).endswith(f"{END}\n\nLook at question 3!")
    ours = note_of(optuna_study, 1)
    one = optuna.trial.Trial(optuna_study, optuna_study.trials[1]._trial_id)
    save_note(one, f"stale {'words ' * 1000}\n\n{END}\nmine")
    assert refresh_notes(study, store) == 1
    assert note_of(optuna_study, 1) == f"{ours}\nmine"


def test_each_pair_of_objectives_has_a_plot_with_intervals_and_units(
    study, store, folder, optuna_study
):
    refresh(study, store, folder)
    kept = attributes(optuna_study)
    plots = {}
    for key in kept:
        beginning, name, *part = key.rsplit(":", 2)
        if beginning == "dashboard:plot_data":
            plots.setdefault(name, {})[int(part[0])] = kept[key]
    figures = {
        name: json.loads("".join(parts[n] for n in sorted(parts))) for name, parts in plots.items()
    }
    assert set(figures) == {
        "tuner-latency_p50_s-accuracy",
        "tuner-energy_wh-accuracy",
        "tuner-energy_wh-latency_p50_s",
    }
    figure = figures["tuner-energy_wh-accuracy"]
    assert figure["layout"]["xaxis"]["title"]["text"] == "energy_wh (Wh/query, cpu-estimate)"
    front = next(each for each in figure["data"] if each["name"] == "front, search questions")
    found = Front.read(study, store).search
    assert front["y"] == [point.values["accuracy"] for point in found]
    assert front["error_y"]["array"] == pytest.approx(
        [point.intervals["accuracy"][1] - point.values["accuracy"] for point in found]
    )
    assert "on the front in" in front["text"][0]


def test_what_is_worth_deploying_is_attached_as_a_file_that_runs(
    study, store, folder, optuna_study
):
    written = refresh(study, store, folder)
    files = sorted(file.name for file in folder.iterdir())
    assert files == ["pack.documents.jsonl", "report.html", "trial-1.yaml"]
    assert "artifacts:report.html" in attributes(optuna_study)
    agent = load_agent_file(folder / "trial-1.yaml")
    assert agent.config.params["max_steps"] == 2
    assert "knee" in agent.provenance["recommended_by"]
    assert written.files == 2
    trial = optuna_study.trials[1]._trial_id
    meta = json.loads(attributes(optuna_study)[f"dashboard:artifacts:{trial}:trial-1.yaml"])
    assert meta["artifact_id"] == meta["filename"] == "trial-1.yaml"


def test_the_front_and_optuna_are_left_as_they_were(study, store, folder, optuna_study):
    before = Front.read(study, store), optuna_study.get_trials()
    refresh(study, store, folder)
    after = Front.read(study, store), optuna_study.get_trials()
    assert after == before
    optuna_study.ask()


def test_a_study_without_trials_has_a_note_and_no_files(keep, tmp_path):
    study = keep()
    store = Store.open(study.storage_url, study.spec.name)
    written = refresh(study, store, tmp_path)
    assert (written.notes, written.files) == (1, 0)
    store.close()
