"""`tuner record` end to end against a loopback server, and what it refuses before anything runs."""

from pathlib import Path

from tuner.table import Table

SPACE = """\
format_version: 1
name: small
workflows:
  direct: {few_shot: 0}
  react: {max_steps: [1, 2, 3], thoughts: false}
"""


def test_a_whole_space_is_measured_and_written_and_told(tuner, make_study, tmp_path):
    study = make_study(space=SPACE, replace=("examples: 10, holdout: 6", "examples: 3, holdout: 0"))
    out = tmp_path / "t.jsonl.gz"
    ended = tuner("record", study.path, "--out", out, "--whole-space")
    assert ended.code == 0, ended.err
    assert ended.out == f"{out}\n"
    assert (
        "4 configs, 2 of them recorded and 2 at budgets that their checkpoints tell; 6 rows"
        in ended.err
    )
    again = tuner("record", study.path, "--out", tmp_path / "t.jsonl")
    assert again.code == 0, again.err
    assert Table.read(Path(again.out.strip())) == Table.read(out)


def test_mistakes_are_refused_before_anything_runs(tuner, make_study, tmp_path):
    study = make_study(space=SPACE)
    ended = tuner(
        "record", study.path, "--out", tmp_path / "nowhere" / "t.jsonl.gz", "--whole-space"
    )
    assert (ended.code, ended.out) == (2, "")
    assert f"--out: there is no folder {tmp_path / 'nowhere'}" in ended.err
    ended = tuner("record", study.path, "--out", tmp_path / "t.jsonl.gz")
    assert ended.code == 2
    assert "there is no such file yet" in ended.err
    assert not (study.path.parent / "tuner.db").exists()
