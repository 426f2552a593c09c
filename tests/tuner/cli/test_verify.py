"""`tuner verify`: what it prints, and the exit status that cron and CI go by."""

import json

import pytest

from tuner.export import export
from tuner.results import open_results
from tuner.rules import Rule
from tuner.study import run_study

SIZES = ("examples: 10, holdout: 6", "examples: 4, holdout: 80")


@pytest.fixture(scope="module")
def claim():
    """What was exported, made once."""
    return []


@pytest.fixture
def path(make_study, claim, tmp_path):
    """An export whose claim is of 80 holdout questions, half of which are answered rightly."""
    study = make_study(trials=1, replace=SIZES, questions=90)
    out = tmp_path / "best.yaml"
    if not claim:
        run_study(study)
        export(study, open_results(study), rule=Rule.parse("max-accuracy"), out=out)
        claim.append(out.read_text())
    out.write_text(claim[0])
    return out


def test_the_command_ends_with_1_where_the_claim_does_not_hold(path, serve, api_base, tuner):
    ended = tuner("verify", path)
    assert ended.code == 0
    assert ended.out.endswith("The claim holds.\n")
    ended = tuner("verify", path, "--questions", 10)
    assert ended.code == 0
    assert "accuracy cannot be told with 10 questions" in ended.out
    assert "some 73 questions would tell" in ended.out
    assert ended.out.endswith("whether all of it holds cannot be told.\n")
    with serve("--text", "Answer: none of them, and with many more words than before") as other:
        path.write_text(path.read_text().replace(api_base, other))
        ended = tuner("verify", path)
        assert ended.code == 1
        assert ended.out.endswith("accuracy and tokens_total are worse than tolerated.\n")
        ended = tuner("verify", path, "--json")
    assert ended.code == 1
    content = json.loads(ended.out)
    assert content["outcome"] == "fails"
    assert [claim["outcome"] for claim in content["claims"]] == ["fails", "fails"]


@pytest.mark.parametrize("given", ["accuracy", "accuracy=x", "accuracy=-1", "accuracy=inf"])
def test_a_tolerance_that_is_none_is_refused(path, tuner, given):
    ended = tuner("verify", path, "--tolerance", given)
    assert ended.code == 2
    assert "write accuracy=0.05" in ended.err
