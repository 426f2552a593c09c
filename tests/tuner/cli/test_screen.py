"""The live screen fits whatever terminal it is in, and says what is known."""

import os
import re
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tuner import events
from tuner.budget import Used
from tuner.cli.screen import Screen
from tuner.spec import load_study
from workflows.config import AgentConfig

if sys.platform != "win32":
    import fcntl
    import pty
    import termios

import pyte

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def path(keep, found, tmp_path):
    rows = [(1, 2, 12), (0, 2, 12), (1, 3, 13), (1, 2, 12)]
    keep(
        found("direct", {"few_shot": 2}, search=[(0, 1, 4)] * 4),
        found("react", {"max_steps": 2}, search=rows),
        found("react", {"max_steps": 3}, search=[(1, 9, 40)] * 4),
        found("react", {"max_steps": 6}, search=[(1, 9, 40)] * 4, feasible=False),
        extra="constraints: {latency_p95_s: '<= 20'}\n",
    )
    return tmp_path / "study.yaml"


def react(steps):
    return AgentConfig(workflow="react", model="m", params={"max_steps": steps})


def ended(trial, steps, accuracy, seconds, wh, *, p95=1.0, failure=None):
    values = None if failure else {
        "accuracy": accuracy, "latency_p50_s": seconds, "energy_wh": wh, "latency_p95_s": p95
    }  # fmt: skip
    return events.TrialEnded(trial, react(steps), values, None, failure)


@pytest.fixture
def screen(path):
    """One that goes on with the study, with a trial under way and all that there may be to say."""
    screen = Screen(load_study(path))
    screen(events.Talk("warming up"))
    screen(events.PassStarted(4, react(5), "search", 4, 1))
    screen(events.PassEnded(4, "search"))
    screen(ended(4, 5, 0.5, 1.5, 0.002))
    screen(ended(5, 4, 0, 0, 0, failure="3 of 4 examples failed:\nthe server said no"))
    screen(ended(6, 3, 1.0, 0.1, 0.0001, p95=99.0))
    screen(events.PassStarted(7, react(1), "holdout", 4, 0))
    screen(events.Talk("trial 7: the client was the limit"))
    screen._used = [
        Used("trials", 4, 9),
        Used("s", 4000.0, 7200.0),
        Used("Wh", 1.5, 4.0),
        Used("tokens", 123456, 1000000),
    ]
    screen._search_s = 4000.0
    yield screen
    screen.close()


def text(screen, width, height):
    return [line.plain for line in screen.lines(width, height)]


@pytest.mark.parametrize("height", [1, 2, 3, 5, 8, 10, 14, 19, 20, 24, 40, 100])
@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 200, 300])
def test_it_never_has_more_lines_or_columns_than_fit(screen, width, height):
    lines = text(screen, width, height)
    assert 0 < len(lines) <= height
    assert max(map(len, lines)) <= width
    assert not any("\n" in line for line in lines)


def test_a_wide_one_shows_everything(screen):
    lines = text(screen, 200, 50)
    shown = "\n".join(lines)
    assert lines[0].startswith("kept: confirming")
    assert "about 53 min 20 s of searching left" in lines[0]
    assert re.search(r"^trials +4 of 9 +5 left +━", shown, re.M)
    assert re.search(r"^time +1 h 6 min of 2 h +53 min 20 s left", shown, re.M)
    assert re.search(r"^energy +1.5 of 4 Wh +2.5 Wh left", shown, re.M)
    assert re.search(r"^tokens +123,456 of 1,000,000 ", shown, re.M)
    assert "holdout, trial 7: react max_steps=1" in shown
    assert "0 of 4 questions, 0 right" in shown
    assert "knee so far: trial " in shown
    assert "gives up most in" in shown
    assert "failed: trial 5: 3 of 4 examples failed: the server said no" in shown
    assert "trial 7: the client was the limit" in shown
    table = shown[shown.index("front so far") :].splitlines()
    assert table[1].split() == ["trial", "config", "accuracy", "latency_p50_s", "energy_wh"]
    # Those of earlier runs too; none that is dominated, failed or beyond a bound.
    assert [line.split()[0] for line in table[2:]] == ["2", "1", "4", "0"]
    assert "react max_steps=5" in shown[shown.index("front so far") :]


def test_a_narrow_one_folds_configs_and_a_very_narrow_one_leaves_columns_out(screen):
    folded = text(screen, 60, 40)
    place = next(n for n, line in enumerate(folded) if line.startswith("front so far"))
    assert folded[place + 1].split() == ["trial", "accuracy", "latency_p50_s", "energy_wh"]
    config, figures = next(
        (line, folded[n + 1]) for n, line in enumerate(folded) if line.startswith("4 ")
    )
    assert config.split() == ["4", "react", "max_steps=5"]
    assert figures.split() == ["50", "%", "1.5", "0.002"]
    dropped = text(screen, 40, 40)
    title = next(line for line in dropped if line.startswith("front so far"))
    assert title.startswith("front so far; without energy_wh")


def test_several_under_way_have_a_line_each(screen):
    for trial in range(8, 20):
        screen(events.PassStarted(trial, react(2), "search", 16, 3))
    shown = text(screen, 100, 40)
    assert "━━──────   3 of 16  trial 8: react max_steps=2" in shown
    assert "────────  0 of 4  holdout, trial 7: react max_steps=1" in shown
    assert "and 6 more under way" in shown
    low = text(screen, 100, 10)
    assert "and 12 more under way" in low


def test_a_low_one_keeps_what_matters_most(screen):
    lines = text(screen, 100, 10)
    assert lines[1].startswith("4 of 9 trials, 1 h 6 min of 2 h, 1.5 of 4 Wh, 123,456")
    assert lines[2] == "holdout, trial 7: react max_steps=1"
    assert any(line.startswith("knee so far") for line in lines)
    assert any(line.startswith("failed: ") for line in lines)


def test_rows_that_do_not_fit_are_counted(screen):
    for trial in range(10, 30):
        screen(ended(trial, 1, trial / 40, trial / 10, 0.001))
    lines = text(screen, 200, 30)
    more = int(re.fullmatch(r"and (\d+) more", lines[-1])[1])
    rows = [line for line in lines if re.match(r"\d+ +react max_steps=1", line)]
    assert len(lines) <= 30
    assert more + len(rows) >= 20


def test_what_is_worth_reading_is_left_behind(screen):
    screen(events.StudyEnded("all 9 trials are done"))
    assert screen.said == [
        "trial 5 failed: 3 of 4 examples failed:\nthe server said no",
        "trial 7: the client was the limit",
        "search ended: all 9 trials are done",
    ]


def test_the_expected_front_takes_the_place_of_the_one_measured(screen):
    values = {"accuracy": 0.9, "latency_p50_s": 0.5, "energy_wh": 0.001}
    screen(events.FrontExpected((events.Expected(react(2), 3, values),)))
    lines = text(screen, 120, 40)
    assert "front so far, as all answers make it likely" in lines
    assert lines[-1].split() == ["3", "react", "max_steps=2", "90", "%", "0.5", "0.001"]
    assert "knee so far: react max_steps=2" in lines


class Terminal:
    """A command in a terminal of a size, and what stands on its screen."""

    def __init__(self, command, columns, lines):
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        ours, theirs = pty.openpty()
        self._file = ours
        self._set(columns, lines)
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True,
            env=environment | {"TERM": "xterm-256color"}, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)

    def _set(self, columns, lines):
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns, lines):
        self.screen.resize(lines, columns)
        self._set(columns, lines)
        os.kill(self.process.pid, signal.SIGWINCH)

    def wait_for(self, pattern, *, timeout_s=60.0):
        """The screen's text once a line of it matches; what it was at the end where none does."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            ready, _, _ = select.select([self._file], [], [], 0.1)
            if ready:
                try:
                    self._stream.feed(os.read(self._file, 65536))
                except OSError:  # it has ended
                    break
            shown = [line.rstrip() for line in self.screen.display]
            if any(re.search(pattern, line) for line in shown):
                return shown
        pytest.fail(f"no {pattern!r} on the screen:\n" + "\n".join(self.screen.display))

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self._file)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_in_a_terminal_that_changes_its_size_under_way(make_study, serve):
    with serve("--delay-s", "0.08") as slow:
        study = make_study(server=slow, trials=5)
        command = [
            sys.executable,
            "-c",
            "from tuner.cli import main; main()",
            "run",
            str(study.path),
        ]
        terminal = Terminal(command, 120, 30)
        try:
            wide = terminal.wait_for(r"^trials +\d of 5")
            assert wide[0].startswith("small: searching")
            terminal.resize(60, 16)
            terminal.screen.reset()
            narrow = terminal.wait_for(r"^\d of 5 trials")
            assert narrow[0].startswith("small: searching")
            assert len([line for line in narrow if line.startswith("small: ")]) == 1
            terminal.resize(200, 50)
            terminal.screen.reset()
            assert terminal.wait_for(r"^trials +\d of 5 +\d left")[0].startswith("small: ")
            terminal.wait_for(r"^next: .*export")  # the screen is gone, and the front stands there
        finally:
            terminal.close()
