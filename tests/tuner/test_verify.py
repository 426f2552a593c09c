"""An exported claim measured again: on the server that it was measured on, on others, and with other questions."""

import re

import pytest
import yaml

from tuner.claims import Judged
from tuner.errors import ServingError
from tuner.errors import UserError
from tuner.measure.machine import machine
from tuner.verify import Verification
from tuner.verify import verify


def change(exported, find, replace):
    text, count = re.subn(find, replace, exported.read_text())
    assert count >= 1
    exported.write_text(text)


def judged(found: Verification) -> dict[str, Judged]:
    return {claim.name: claim for claim in found.claims}


@pytest.mark.slow
def test_an_unchanged_system_holds(exported):
    found = verify(exported)
    assert (found.outcome, found.split, found.questions, found.of) == ("holds", "holdout", 80, 80)
    assert (found.failed, found.left_out, found.notes) == (0, {}, ())
    accuracy = judged(found)["accuracy"]
    assert accuracy.claimed == accuracy.now == pytest.approx(0.5, abs=0.2)
    assert judged(found)["tokens_total"].interval == (0.0, 0.0)


def test_few_questions_do_not_tell(exported):
    found = verify(exported, questions=10)
    assert (found.outcome, found.questions) == ("undecided", 10)
    assert judged(found)["accuracy"].needed == 73
    assert judged(found)["tokens_total"].outcome == "holds"


@pytest.mark.slow
def test_a_system_that_got_worse_does_not_hold(exported, serve, api_base):
    with serve(
        "--text", "Answer: none of them, and with many more words than there were before"
    ) as other:
        change(exported, api_base, other)
        found = verify(exported)
    assert found.outcome == "fails"
    assert judged(found)["accuracy"].outcome == "fails"
    assert judged(found)["tokens_total"].outcome == "fails"
    tolerant = {"accuracy": 1.0, "tokens_total": 9.0}
    with serve("--text", "Answer: none of them") as other:
        change(exported, r"api_base: .*", f"api_base: {other}")
        assert verify(exported, tolerances=tolerant).outcome == "holds"


@pytest.mark.slow
def test_questions_that_fail_count_as_wrong(exported, serve, api_base):
    # After each failure the server is asked something short, and is well.
    with serve("--script", "200", *["500", "200"] * 30) as other:
        change(exported, api_base, other)
        found = verify(exported)
    assert found.failed == 30
    assert judged(found)["accuracy"].outcome == "fails"
    assert "tokens_total" in judged(found) or "tokens_total" in found.left_out


def test_other_questions_are_refused(exported):
    rows = exported.parent / "study" / "questions.jsonl"
    kept = rows.read_text()
    rows.write_text(kept.replace("seven", "eight"))
    with pytest.raises(UserError, match="not those of the claim any more") as refused:
        verify(exported)
    assert "put the data back" in str(refused.value.hint)
    rows.unlink()
    with pytest.raises(UserError, match=r"provenance\.task: ") as refused:
        verify(exported)
    assert "--data FOLDER" in str(refused.value.hint)
    moved = exported.parent / "moved"
    moved.mkdir()
    (moved / "questions.jsonl").write_text(kept)
    assert verify(exported, questions=2, data=moved).questions == 2


def test_what_asks_for_too_much_or_claims_too_little_is_refused(exported):
    with pytest.raises(UserError, match="--questions 81: the claim has 80 holdout questions"):
        verify(exported, questions=81)
    with pytest.raises(UserError, match=r"--tolerance cost_usd: .* claims: accuracy, tokens_total"):
        verify(exported, tolerances={"cost_usd": 1})
    content = yaml.safe_load(exported.read_text())
    del content["provenance"]["measured"]["holdout"]["answers"]
    exported.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=r"provenance\.measured\.holdout\.answers: ") as refused:
        verify(exported)
    assert "export it again" in str(refused.value.hint)


def test_a_server_that_is_gone_is_no_verdict(exported, api_base):
    change(exported, api_base, "http://127.0.0.1:9/v1")
    with pytest.raises(ServingError, match="nothing answers"):
        verify(exported)


@pytest.mark.slow
def test_times_of_other_hardware_are_left_out(exported):
    content = yaml.safe_load(exported.read_text())
    told = content["provenance"]
    told["measured"]["holdout"]["values"] |= {"latency_p50_s": 0.1, "energy_wh": 0.1}
    assert told["hardware"] == machine()
    exported.write_text(yaml.safe_dump(content))
    found = verify(exported)
    assert judged(found)["latency_p50_s"].questions == 80
    assert found.left_out.keys() == {"energy_wh"}
    told["hardware"] = "Linux x86_64, 96 × Another"
    exported.write_text(yaml.safe_dump(content))
    found = verify(exported, questions=4)
    assert "other hardware: Linux x86_64, 96 × Another; this is" in found.left_out["latency_p50_s"]
    assert judged(found).keys() == {"accuracy", "tokens_total"}


def test_a_claim_of_the_search_questions_is_called_one(exported):
    content = yaml.safe_load(exported.read_text())
    del content["provenance"]["measured"]["holdout"]
    exported.write_text(yaml.safe_dump(content))
    found = verify(exported)
    assert (found.split, found.of) == ("search", 4)
    assert "may have been lucky" in found.notes[0]
