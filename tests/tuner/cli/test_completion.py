"""What the shell offers, asked as the shell asks."""

import os
import subprocess
import sys
import time

import pytest

from tuner.cli import VERBS
from tuner.cli.completion import RULE_FORMS
from tuner.rules import RULES

PROGRAM = "import sys; sys.argv = ['tuner']; from tuner.cli import main; main()"


@pytest.fixture
def offered(tmp_path):
    """The words that are offered at the end of a line, by the protocol of bash; and how long that took."""

    def ask(line: str) -> list[str]:
        words = line.split(" ")
        environment = {
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
            "_TUNER_COMPLETE": "complete_bash",
        }
        ended = subprocess.run(
            [sys.executable, "-P", "-c", PROGRAM], env=os.environ | environment, cwd=tmp_path,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert ended.stderr == ""
        return ended.stdout.split()

    return ask


@pytest.fixture
def study(keep, found, tmp_path):
    rows = [(1, 2, 12)] * 4
    keep(
        found("direct", {"few_shot": 2}, search=rows, holdout=rows[:1]),
        found("react", {"max_steps": 2}, search=[], failure="no"),
    )
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "second.yaml").write_text("name: x\nsearch_space: y\n")
    return tmp_path / "study.yaml"


def test_verbs(offered):
    assert offered("tuner ") == list(VERBS)
    assert offered("tuner co") == ["compare"]


def test_study_files_and_no_other_yaml(offered, study):
    assert offered("tuner front ") == ["study.yaml", "more/second.yaml"]
    assert offered("tuner front m") == ["more/second.yaml"]
    assert offered("tuner compare study.yaml s") == ["study.yaml"]


def test_folders_where_there_is_no_study(offered, tmp_path):
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    assert offered("tuner front a") == ["a/"]


@pytest.mark.slow
def test_trials_and_examples_of_the_study(offered, study):
    assert offered("tuner show study.yaml ") == ["0", "1"]
    assert offered("tuner compare study.yaml 0 1") == ["1"]
    examples = offered("tuner trace study.yaml 0 ")
    assert len(examples) == 5  # one of them of the holdout split
    assert offered(f"tuner trace study.yaml 0 {examples[2]}") == [examples[2]]
    assert offered("tuner trace study.yaml 1 ") == []


def test_rules(offered):
    assert offered("tuner export s.yaml --rule m") == ["max-accuracy", "min-energy", "min-latency"]
    assert tuple(kind.form for kind in RULES.values()) == RULE_FORMS


@pytest.mark.parametrize("text", [None, "", "{", "- 1", "name: x\n", "name: x\nstorage: 3\n", "name: x\nstorage: postgresql://127.0.0.1:9/x\n", "name: x\nstorage: nonsense\n"])  # fmt: skip
def test_what_cannot_be_read_offers_nothing(offered, tmp_path, text):
    if text is not None:
        (tmp_path / "s.yaml").write_text(text)
    assert offered("tuner show s.yaml ") == []


def test_other_shells_are_told_what_a_trial_is(study, tmp_path):
    asked = {"_TUNER_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "tuner show study.yaml "}
    ended = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM], env=os.environ | asked, cwd=tmp_path,
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert '"0":"direct, complete"' in ended.stdout
    assert '"1":"react, fail"' in ended.stdout


def test_the_script_for_the_shell_is_shown(tuner, monkeypatch):
    # Typer would ask by which shell it was started; the tests may have been started by none.
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    shown = tuner("--show-completion", "bash")
    assert shown.code == 0
    assert "_TUNER_COMPLETE=complete_bash" in shown.out


def test_nothing_heavy_is_imported_to_complete(study, tmp_path):
    code = "import sys; sys.argv = ['tuner', '--help']; from tuner.cli import make_app; make_app(); from tuner.cli.completion import _rows, _TRIALS; from pathlib import Path; assert _rows(Path('study.yaml'), _TRIALS, study='kept') is not None; print([m for m in ('numpy', 'pydantic', 'sqlalchemy', 'optuna', 'rich.live', 'scipy', 'litellm', 'workflows') if m in sys.modules])"
    started = time.perf_counter()
    ended = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)  # fmt: skip
    assert ended.stdout == "[]\n", ended.stderr
    assert (
        time.perf_counter() - started < 10
    )  # a machine may be busy; what is imported is what counts
