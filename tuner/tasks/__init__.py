"""Tasks by name: what is asked, what counts as right, and what an agent gets to work with.

One file a dataset, with `Options` (the study's `task:` keys) and `load(options, base) -> Task`; a new
one is a file and a line in TASKS.
"""

import hashlib
import json
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

from tuner.errors import SpecError
from workflows.agent_pack import AgentPack

Split = Literal["search", "holdout"]
SPLITS: tuple[Split, ...] = ("search", "holdout")

TASKS: Mapping[str, str] = {
    "villages": "tuner.tasks.villages",
    "hotpotqa": "tuner.tasks.hotpotqa",
    "musique": "tuner.tasks.musique",
    "strategyqa": "tuner.tasks.strategyqa",
    "gsm8k": "tuner.tasks.gsm8k",
    "math": "tuner.tasks.math",
    "game24": "tuner.tasks.game24",
    "humaneval": "tuner.tasks.humaneval",
    "mbpp": "tuner.tasks.mbpp",
    "shop": "tuner.tasks.shop",
    "chat": "tuner.tasks.chat",
    "jsonl": "tuner.tasks.jsonl",
}


@dataclass(frozen=True, slots=True)
class Example:
    """One question; any of `answers` is right, the first is the one that is shown."""

    id: str
    question: str
    answers: tuple[str, ...]
    kind: str = ""
    """The task's own label, for tables by kind of question."""
    secret: str = ""
    """What only the scorer may see: hidden tests, a goal. Never part of what an agent gets."""


@dataclass(frozen=True, slots=True)
class Task:
    """Questions in two splits without a question in common, a scorer, and the agent pack."""

    name: str
    pack: AgentPack
    search: tuple[Example, ...]
    holdout: tuple[Example, ...]
    score: Callable[[Example, str], Awaitable[float]]
    """Example and answer to a score in 0 … 1."""
    tool_delay_s: float = 0.0
    """What every tool call takes longer."""

    def examples(self, split: Split) -> tuple[Example, ...]:
        """The examples of a split, in the study's one shuffled order."""
        return self.search if split == "search" else self.holdout

    def fingerprint(self) -> str:
        """16 hex digits that change when a question, an answer or the pack does."""
        content: dict[str, Any] = {
            "name": self.name,
            "pack": self.pack.model_dump(mode="json"),
            "examples": [
                [split, example.id, example.question, example.answers, example.secret]
                for split in SPLITS
                for example in self.examples(split)
            ],
        }
        if self.tool_delay_s:  # left out otherwise: studies of before had none
            content["tool_delay_s"] = self.tool_delay_s
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class TaskOptions(BaseModel):
    """Keys that every task has in a study; each task's own model extends it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    examples: int = Field(default=24, ge=1, description="questions in the search split")
    holdout: int = Field(default=48, ge=0, description="questions in the holdout split")
    seed: int = Field(default=0, ge=0, description="draws and orders the questions")
    tool_delay_s: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="what every tool call takes longer, as if it went over a network",
    )


class Prose:
    """Marks options that hold a text; every other one that may be any string names a file."""


def files_of(options: TaskOptions) -> dict[str, str]:
    """The files that a task's options name, by option."""
    return {
        name: value
        for name, field in type(options).model_fields.items()
        if isinstance(value := getattr(options, name), str)
        and field.annotation in (str, str | None)
        and not any(isinstance(mark, Prose) for mark in field.metadata)
    }


def task_options(name: str) -> type[TaskOptions]:
    """The options model of a task. Raises SpecError that lists the known tasks."""
    if name not in TASKS:
        raise SpecError(
            f"unknown task {name!r}; known: {', '.join(TASKS)}",
            hint="questions of your own are the task jsonl: docs/tasks/jsonl.md",
        )
    options: type[TaskOptions] = import_module(TASKS[name]).Options
    return options


def load_task(name: str, options: TaskOptions, *, base: Path) -> Task:
    """The task with its questions and pack; paths in its options are relative to `base`.

    Raises DataError for a file that is missing, malformed or too short.
    """
    load: Callable[[Any, Path], Task] = import_module(TASKS[name]).load
    return replace(load(options, base), tool_delay_s=options.tool_delay_s)
