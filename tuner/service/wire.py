"""What goes over the wire: requests and replies of the service's API, as its OpenAPI document describes them."""

from datetime import datetime
from typing import Annotated
from typing import Any
from typing import Literal

from fastapi import Path
from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

from tuner.bundle import LONGEST_NAME
from tuner.bundle import MOST_FILES
from tuner.service.book import State

StudyName = Annotated[str, Path(max_length=200, pattern=r"^\w[\w.-]*$", description="a study")]

MOST_PRIORITY = 10.0


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Submit(_Asked):
    """A study with every file that it names; `tuner submit STUDY` makes it."""

    study: str = Field(
        min_length=1, max_length=LONGEST_NAME, description="which of the files it is"
    )
    files: dict[str, str] = Field(
        min_length=1, max_length=MOST_FILES, description="contents in base64, by relative path"
    )
    priority: float = Field(
        default=1.0,
        gt=0,
        le=MOST_PRIORITY,
        allow_inf_nan=False,
        description="among the studies that run: of two that always wait for the same server, one of twice the "
        "priority has it for twice the time",
    )


class Export(_Asked):
    """Which point of the front is wanted, and in which form."""

    rule: str = Field(default="knee", max_length=500)
    format: Literal["agent", "litellm-proxy"] = "agent"


class Verify(_Asked):
    """Which point of the front is to be measured again, and how often."""

    rule: str = Field(default="knee", max_length=500)
    every_s: float | None = Field(
        default=None,
        ge=60,
        le=366 * 86400,
        allow_inf_nan=False,
        description="seconds from one measurement to the next; left out: once, now",
    )
    questions: int | None = Field(
        default=None, ge=2, le=1_000_000, description="of the claim; all if not said"
    )


class Refusal(BaseModel):
    """Why not, and what to do about it."""

    error: str
    hint: str


class Spent(BaseModel):
    """What is spent of one limit of a budget; null where it is not known, or not limited."""

    spent: float | None
    limit: float | None


class Study(BaseModel):
    """A study and how far it is."""

    name: str
    user: str
    priority: float
    state: State
    reason: str = Field(description="why it is in this state")
    submitted: datetime
    changed: datetime = Field(description="when it came into this state")
    trials: dict[str, int] = Field(description="by state, and by how they came about")
    front: int = Field(description="trials that no other dominates")
    budget: dict[str, Spent]


class Exported(BaseModel):
    """An exported config, and why it is this one."""

    trial: int
    why: str
    file: str = Field(description="which of the files it is")
    files: dict[str, str] = Field(description="contents, by names that are to stand side by side")


class Measured(BaseModel):
    """A claim that was measured again."""

    started: datetime
    took_s: float
    outcome: Literal["holds", "fails", "undecided", "error"]
    content: dict[str, Any] = Field(description="what `tuner verify --json` says")


class VerificationReply(BaseModel):
    """A verification with what it has found, the latest first."""

    id: int
    study: str
    user: str
    rule: str
    file: str
    every_s: float | None
    due: datetime | None = Field(description="null: no more")
    results: list[Measured]


class Health(BaseModel):
    """Whether the service works."""

    status: Literal["ok", "unavailable"]
    problem: str | None = None
