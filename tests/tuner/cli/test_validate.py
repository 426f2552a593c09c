import json

import pytest

GOOD = [(1, 2, 8), (1, 3, 8), (1, 2, 9), (1, 4, 8)]
POOR = [(0, 1, 4), (0, 2, 4), (0, 1, 5), (0, 1, 4)]


@pytest.fixture
def path(keep, found, tmp_path):
    keep(
        found("react", {"max_steps": 1}, search=GOOD, holdout=POOR),
        found("react", {"max_steps": 2}, search=POOR, holdout=POOR),
    )
    return tmp_path / "study.yaml"


def test_both_measurements_and_what_to_make_of_them_are_shown(tuner, path):
    ended = tuner("validate", path)
    assert ended.code == 0
    assert "On 4 holdout questions, which the search never saw" in ended.out
    assert "How much worse they are there than in the search" in ended.out
    (row,) = (line for line in ended.out.splitlines() if line.split()[:2] == ["0", "100"])
    assert row.split()[1:3] == ["100", "%"]
    assert "accuracy of trial 0" in ended.out


def test_programs_get_the_same_as_json(tuner, path):
    ended = tuner("validate", path, "--json")
    assert ended.code == 0
    content = json.loads(ended.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert list(content) == ["study", "questions", "points", "unconfirmed", "oracle", "sentences"]
    (lucky,) = (point for point in content["points"] if point["trial"] == 0)
    assert lucky["drop"]["accuracy"]["value"] == 1.0
    low, high = lucky["drop"]["accuracy"]["interval"]
    assert 0 < low < 1.0 <= high
    assert lucky["config"]["params"]["max_steps"] == 1
    assert lucky["on_front"] is True
    assert (content["questions"], content["unconfirmed"], content["oracle"]) == (4, [], [])


def test_a_study_without_holdout_questions_is_refused(tuner, path):
    path.write_text(path.read_text().replace("holdout: 4", "holdout: 0"))
    ended = tuner("validate", path)
    assert ended.code == 2
    assert ended.err.startswith(f"error: {path}: task: holdout: is 0")
    assert "hint: " in ended.err
