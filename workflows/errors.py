"""What can go wrong while an agent is built or answers; apart, so that callers can catch without importing an engine.

WorkflowsError
├── ConfigError      a config, pack or exported file cannot be used as it stands
├── ModelError       a model gave no usable answer to a call, after the retries
│   └── ModelTimeout the last try ran past its time-out
└── ToolError        a tool cannot do what it was asked; the agent reads it as an observation
"""


class WorkflowsError(Exception):
    """Base of every error this package raises; `hint` says what to do about it."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint: str | None = hint


class ConfigError(WorkflowsError):
    """A config, agent pack or exported file cannot be used as it stands; the hint, which each has, says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.hint: str = hint


class ModelError(WorkflowsError):
    """A model gave no usable answer to a call, after the retries."""


class ModelTimeout(ModelError):  # noqa: N818 - named like TimeoutError would be, which it must not hide
    """The last try of a call ran past its time-out."""


class ToolError(WorkflowsError):
    """A tool cannot do what it was asked; its message becomes the observation."""
