"""Errors say the same after a journey from a worker on another machine."""

import pickle

import pytest

from tuner.errors import SpecError
from tuner.errors import TunerError
from tuner.errors import UserError
from tuner.executors.workers import GoneError
from tuner.executors.workers import WorkerLostError
from workflows.errors import ModelError


@pytest.mark.parametrize(
    "error",
    [
        TunerError("one"),
        TunerError("one", "do that"),
        UserError("one", "do that"),
        SpecError("study.yaml:3: one", hint="do that"),
        WorkerLostError("worker 1 was lost"),
        GoneError("llama", ModelError("no reply", hint="wait")),
    ],
)
def test_an_error_is_the_same_after_pickling(error: TunerError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), copy.hint, vars(copy)) == (str(error), error.hint, vars(error))
