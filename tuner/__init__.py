"""Finds the agent configurations worth deploying: Pareto-optimal in accuracy, latency and energy.

cli/         one file a verb
check.py     what can be known before the first trial
export.py    a front point as a file that runs
study.py     the ask/tell loop
results.py   the front so far, with intervals
executors/   where trials run
store/       what is kept
evaluate.py  one config on many examples
spec.py      a study file as validated data
samplers/    what is tried next
space.py, objectives.py, tasks/, serving/, measure/   what the above are made of
records.py, front.py, condition.py, source.py         plain data and arithmetic

study = tuner.load_study("studies/quickstart.yaml")
tuner.run_study(study)
front = tuner.Front.read(study)
"""

from importlib import import_module
from typing import TYPE_CHECKING
from typing import Any

if TYPE_CHECKING:
    from tuner.results import Front as Front
    from tuner.spec import load_study as load_study
    from tuner.study import run_study as run_study

__all__ = ["Front", "load_study", "run_study"]

_HOMES = {"Front": "tuner.results", "load_study": "tuner.spec", "run_study": "tuner.study"}


def __getattr__(name: str) -> Any:
    # On first use: the command line and a server's start must not wait for Optuna.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tuner' has no attribute {name!r}")
