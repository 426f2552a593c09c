"""`tuner verify`: what it prints, and the exit status that cron and CI go by."""

import json

import pytest


@pytest.mark.slow
def test_the_command_ends_with_1_where_the_claim_does_not_hold(exported, serve, api_base, tuner):
    ended = tuner("verify", exported)
    assert ended.code == 0
    assert ended.out.endswith("The claim holds.\n")
    ended = tuner("verify", exported, "--questions", 10)
    assert ended.code == 0
    assert "accuracy cannot be told with 10 questions" in ended.out
    assert "some 73 questions would tell" in ended.out
    assert ended.out.endswith("whether all of it holds cannot be told.\n")
    with serve("--text", "Answer: none of them, and with many more words than before") as other:
        exported.write_text(exported.read_text().replace(api_base, other))
        ended = tuner("verify", exported)
        assert ended.code == 1
        assert ended.out.endswith("accuracy and tokens_total are worse than tolerated.\n")
        ended = tuner("verify", exported, "--json")
    assert ended.code == 1
    content = json.loads(ended.out)
    assert content["outcome"] == "fails"
    assert [claim["outcome"] for claim in content["claims"]] == ["fails", "fails"]


@pytest.mark.parametrize("given", ["accuracy", "accuracy=x", "accuracy=-1", "accuracy=inf"])
def test_a_tolerance_that_is_none_is_refused(exported, tuner, given):
    ended = tuner("verify", exported, "--tolerance", given)
    assert ended.code == 2
    assert "write accuracy=0.05" in ended.err
