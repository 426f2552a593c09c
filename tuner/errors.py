"""What the tuner can refuse; at the bottom, so that every layer can say why.

TunerError
├── UserError        something that the user gave cannot be used: exit 2, no traceback
│   ├── SpecError    a study or search-space file
│   ├── DataError    a dataset file
│   ├── ServingError a model's weights or server
│   └── StoreError   a study's database
└── TrialError       one trial cannot give its values; the study goes on
    └── VariantError a server does not start with these serving knobs
"""

from typing import Any


class TunerError(Exception):
    """Base of every error the tuner raises; `hint` says what to do about it."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint: str | None = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """As pickle is to make it anew, whatever a subclass wants to be told: a worker on another machine may have raised it."""
        return self.__class__.__new__, (self.__class__, *self.args), self.__dict__


class UserError(TunerError):
    """Something that the user gave cannot be used as it stands; the hint, which each has, says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.hint: str = hint


class SpecError(UserError):
    """A study or search-space file cannot be used; the message names file, line and key."""


class DataError(UserError):
    """A dataset file cannot be read; the message names file and line."""


class ServingError(UserError):
    """A model's weights cannot be had, or its server does not come up or cannot be reached."""


class StoreError(UserError):
    """A study's database cannot be used with this study or this version."""


class TrialError(TunerError):
    """One trial cannot give its values; it is told as failed, and the study goes on."""


class VariantError(TrialError):
    """A model's server does not start as a trial wants it served; that is no fault of other trials."""
