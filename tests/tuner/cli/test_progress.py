"""What a terminal shows of a study while it runs."""

import io
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tuner.cli import screen as screen_module
from tuner.cli.progress import open_progress
from tuner.events import Event
from tuner.spec import LoadedStudy
from tuner.spec import load_study
from tuner.study import run_study


class Terminal(io.StringIO):
    """Keeps what is written to it."""

    def isatty(self) -> bool:
        return True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "sampler", "shown"),
    [
        (
            "trials: 4, tokens: 100000, wall_clock: 9h",
            "tpe",
            ("3 of 4 ", " of 9 h ", " of 100,000 ", " s, about ", " of searching left"),
        ),
        ("trials: 2", "pooled", ("questions ", " of 20 ", " s, about ")),
    ],
)
def test_the_screen_says_what_is_left(
    make_study: Callable[..., LoadedStudy],
    monkeypatch: pytest.MonkeyPatch,
    limits: str,
    sampler: str,
    shown: tuple[str, ...],
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(screen_module, "LOOK_S", 0.0)
    path = make_study(replace=("trials: 6", limits)).path
    path.write_text(path.read_text().replace("name: tpe", f"name: {sampler}"))
    study = load_study(path)
    seen: list[str] = []
    with open_progress(study) as report:
        screen: Any = report

        def look(event: Event) -> None:
            screen(event)
            seen.append("\n".join(line.plain for line in screen.lines(150, 40)))

        run_study(study, report=look)
    assert any(all(part in line for part in shown) for line in seen), seen
    assert any(line.startswith("small: search ended: all ") for line in seen)
